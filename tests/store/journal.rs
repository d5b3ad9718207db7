//! Batches: handed in again when nobody knows what became of them.

use std::sync::Arc;

use storekeeper::domain::cart::{CartState, HoldState, LineChange};
use storekeeper::domain::order::OrderStatus;
use storekeeper::domain::stock::{Action, Balance, Move, Reason};
use storekeeper::persistence::CommitError;
use storekeeper::persistence::entry::{Done, Entry, Refusal, SessionAction, SessionChange, Work};
use storekeeper::persistence::records::{Order, ProductChange, ProductPatch};
use uuid::Uuid;

use crate::shop::{Shop, Stocked, TRACEPARENT, movement, new_user, page, placing, transition};

/// The clearing of a cart with one line, as it was seen when it had one change.
async fn clearing(shop: &Shop, stock: &Stocked) -> Work {
    let cart = shop.cart(&[(stock, 2)]).await;
    let release = movement(stock.inventory, Move::release(2), Some(cart.id.key), None);
    let end = SessionAction::End { seen: cart.version, state: CartState::Cleared };
    Work::Write(Arc::new(Entry {
        session: Some(SessionChange { key: cart.id.key, action: end }),
        lines: cart.lines.iter().map(|line| LineChange::End(*line)).collect(),
        line_end: Some(HoldState::Released),
        movements: vec![release],
        ..Entry::default()
    }))
}

pub(crate) async fn a_committed_batch_is_known_when_it_comes_again(shop: &Shop) {
    let stock = shop.stocked("L-1", 10).await;
    let (batch, works) = (Uuid::now_v7(), [clearing(shop, &stock).await]);
    let first = shop.store.commit(batch, &works).await.expect("a commit");
    assert!(matches!(first.done[..], [Done::Applied(_)]), "{first:?}");
    // Nothing of it fits any more, just because it was done.
    for _ in 0..2 {
        let again = shop.store.commit(batch, &works).await;
        assert!(matches!(again, Err(CommitError::AlreadyCommitted)), "{again:?}");
    }
}

pub(crate) async fn a_batch_that_was_not_committed_can_come_again(shop: &Shop) {
    let stock = shop.stocked("L-1", 10).await;
    let clearing = clearing(shop, &stock).await;
    shop.store.commit(Uuid::now_v7(), std::slice::from_ref(&clearing)).await.expect("a commit");
    let batch = Uuid::now_v7();
    for _ in 0..2 {
        let refused = shop.store.commit(batch, std::slice::from_ref(&clearing)).await.expect("an answer");
        assert!(matches!(refused.done[..], [Done::Refused(_)]), "{refused:?}");
    }
    let receipt = Work::Load(stock.inventory);
    let loaded = shop.store.commit(batch, &[clearing, receipt]).await.expect("an answer");
    assert!(matches!(loaded.done[..], [Done::Refused(_), Done::Loaded(Some(_))]), "{loaded:?}");
}

/// A receipt of one unit that rests on a product being as it was seen.
fn receipt(stock: &Stocked, seen: Option<i64>) -> Work {
    let receipt = Move { action: Action::In, reason: Reason::Receipt, units: 1 };
    Work::Write(Arc::new(Entry {
        movements: vec![movement(stock.inventory, receipt, None, None)],
        products: seen.map(|version| (stock.product, version)).into_iter().collect(),
        ..Entry::default()
    }))
}

pub(crate) async fn what_rests_on_a_product_that_has_changed_is_refused(shop: &Shop) {
    let (stock, other) = (shop.stocked("L-1", 10).await, shop.stocked("T-1", 10).await);
    // From here on the journal knows the stock, and need not look.
    shop.store.commit(Uuid::now_v7(), &[receipt(&stock, None), receipt(&other, None)]).await.expect("a commit");
    let fits = [receipt(&stock, Some(1)), receipt(&other, Some(1))];
    let committed = shop.store.commit(Uuid::now_v7(), &fits).await.expect("a commit");
    assert!(matches!(committed.done[..], [Done::Applied(_), Done::Applied(_)]), "{committed:?}");

    let changed = shop.store.patch_product(stock.product, &ProductPatch::default(), Some(1), shop.now()).await;
    assert!(matches!(changed, Ok(ProductChange::Changed(_))), "{changed:?}");
    let works = [receipt(&other, Some(1)), receipt(&stock, Some(1)), receipt(&stock, None)];
    let committed = shop.store.commit(Uuid::now_v7(), &works).await.expect("a commit");
    let [Done::Applied(_), Done::Refused(why), Done::Applied(_)] = &committed.done[..] else { panic!("{committed:?}") };
    assert_eq!(*why, Refusal::ProductChanged { product: stock.product });
    let again = [receipt(&stock, Some(2)), Work::Load(stock.inventory), Work::Load(other.inventory)];
    let committed = shop.store.commit(Uuid::now_v7(), &again).await.expect("a commit");
    let [Done::Applied(_), Done::Loaded(Some(one)), Done::Loaded(Some(two))] = &committed.done[..] else {
        panic!("{committed:?}")
    };
    assert_eq!(*one, Balance { on_hand: 14, held: 0, seq: 5 });
    assert_eq!(*two, Balance { on_hand: 13, held: 0, seq: 4 });
}

/// What one of the orders that are placed at once is made of.
struct Wanted<'a> {
    lines: &'a [(&'a Stocked, i64)],
    address: Option<&'a str>,
    payment: Option<&'a str>,
    actor: &'a str,
    traceparent: Option<&'a str>,
}

/// Carts are opened by one batch and become orders by another; each is kept as it was told, whether all say the same or not.
async fn many_at_once(shop: &Shop, wanted: &[Wanted<'_>]) {
    let mut ledger = Vec::new();
    let (mut carts, mut entries) = (Vec::new(), Vec::new());
    for wanted in wanted {
        let (cart, mut entry) = shop.put(&shop.fresh_cart(), &wanted.lines[0]);
        for movement in &mut entry.movements {
            (movement.actor, movement.reference) = (wanted.actor.into(), wanted.address.map(Into::into));
        }
        ledger.extend(entry.movements.iter().cloned());
        carts.push(cart);
        entries.push(entry);
    }
    shop.write_at_once(entries).await;
    for (cart, wanted) in carts.iter_mut().zip(wanted) {
        for line in &wanted.lines[1..] {
            let (after, entry) = shop.put(cart, line);
            ledger.extend(entry.movements.iter().cloned());
            shop.write(entry).await;
            *cart = after;
        }
        assert_eq!(shop.store.cart(cart.id.key).await.expect("a read").expect("a cart").cart, *cart);
    }

    let (mut orders, mut entries) = (Vec::new(), Vec::new());
    for (cart, wanted) in carts.iter().zip(wanted) {
        let order = Order {
            shipping_address: wanted.address.map(str::to_owned),
            payment_reference: wanted.payment.map(str::to_owned),
            ..shop.order_of(cart, new_user()).await
        };
        let mut entry = placing(cart, &order);
        entry.traceparent = wanted.traceparent.map(str::to_owned);
        entry.movements.iter_mut().for_each(|movement| movement.actor = wanted.actor.into());
        ledger.extend(entry.movements.iter().cloned());
        orders.push(order);
        entries.push(entry);
    }
    shop.write_at_once(entries).await;
    let now = shop.now();
    let told = shop.store.claim_changes(now, now, 100).await.expect("a claim");
    for ((cart, order), wanted) in carts.iter().zip(orders).zip(wanted) {
        let kept = shop.store.cart(cart.id.key).await.expect("a read").expect("a cart");
        assert_eq!((kept.cart.state, kept.cart.version), (CartState::Ordered, cart.version + 1));
        assert_eq!(kept.order, Some(order.id));
        let change = told.iter().find(|change| change.order == order.id).expect("it is told");
        assert_eq!((change.sequence, change.from, change.to), (1, None, OrderStatus::Pending));
        assert_eq!(change.traceparent.as_deref(), wanted.traceparent);
        assert_eq!(shop.store.order(order.id).await.expect("a read"), Some(order));
    }
    for written in ledger {
        let history = shop.store.movements(written.inventory, &page(None, 100)).await.expect("a page").rows;
        let row = history.into_iter().find(|row| row.id == written.id).expect("it is in the ledger");
        assert_eq!(Move { action: row.action, reason: row.reason, units: row.units }, written.stock_move);
        assert_eq!((row.cart.map(|cart| cart.key), row.order), (written.cart, written.order));
        assert_eq!((row.reference.as_deref(), &*row.actor), (written.reference.as_deref(), &*written.actor));
    }
    shop.publish_all().await;
    shop.assert_in_order().await;
}

pub(crate) async fn what_is_written_at_once_is_each_as_it_was_told(shop: &Shop) {
    let (lamp, table) = (shop.stocked("L-1", 100).await, shop.stocked("T-1", 100).await);
    let (elm_street, trace) = (Some(r#"{"street":"Elm Street 1"}"#), Some(TRACEPARENT));
    let (one, two, both) = ([(&lamp, 1)], [(&lamp, 2)], [(&table, 1), (&lamp, 2)]);
    let guest = Wanted { lines: &one, address: None, payment: None, actor: "guest", traceparent: None };
    many_at_once(shop, &[0; 3].map(|_| Wanted { ..guest })).await;
    many_at_once(
        shop,
        &[0; 3].map(|_| Wanted { address: elm_street, payment: Some("paid"), traceparent: trace, ..guest }),
    )
    .await;
    many_at_once(shop, &[Wanted { ..guest }, Wanted { lines: &two, ..guest }, Wanted { lines: &both, ..guest }]).await;
    many_at_once(shop, &[Wanted { ..guest }, Wanted { address: elm_street, ..guest }]).await;
    many_at_once(shop, &[Wanted { ..guest }, Wanted { payment: Some("paid"), ..guest }]).await;
    many_at_once(shop, &[Wanted { ..guest }, Wanted { actor: "ann", ..guest }, Wanted { traceparent: trace, ..guest }])
        .await;
}

/// A cart that opens, one that gets another line, one that becomes an order and an order that is confirmed, in one batch.
pub(crate) async fn what_has_little_in_common_is_written_at_once(shop: &Shop) {
    let (lamp, table) = (shop.stocked("L-1", 100).await, shop.stocked("T-1", 100).await);
    let (growing, bought) = (shop.cart(&[(&lamp, 2)]).await, shop.cart(&[(&table, 3), (&lamp, 1)]).await);
    let (ended, earlier) = (shop.cart(&[(&table, 5)]).await, shop.cart(&[(&lamp, 4)]).await);
    let confirmed = shop.check_out(&earlier, new_user()).await;
    let order = shop.order_of(&bought, new_user()).await;
    let (opened, opening) = shop.put(&shop.fresh_cart(), &(&table, 1));
    let (grown, growth) = shop.put(&growing, &(&table, 7));
    let release = movement(table.inventory, Move::release(5), Some(ended.id.key), None);
    let clearing = Entry {
        session: Some(SessionChange {
            key: ended.id.key,
            action: SessionAction::End { seen: ended.version, state: CartState::Cleared },
        }),
        lines: ended.lines.iter().map(|line| LineChange::End(*line)).collect(),
        line_end: Some(HoldState::Released),
        movements: vec![release],
        ..Entry::default()
    };
    let confirming = transition(&confirmed, OrderStatus::Confirmed);
    shop.write_at_once(vec![opening, growth, placing(&bought, &order), clearing, confirming]).await;
    for cart in [&opened, &grown] {
        assert_eq!(shop.store.cart(cart.id.key).await.expect("a read").expect("a cart").cart, *cart);
    }
    for (cart, state) in [(&bought, CartState::Ordered), (&ended, CartState::Cleared)] {
        let kept = shop.store.cart(cart.id.key).await.expect("a read").expect("a cart").cart;
        assert_eq!((kept.state, kept.version, kept.lines.len()), (state, cart.version + 1, cart.lines.len()));
    }
    assert_eq!(shop.store.order(order.id).await.expect("a read"), Some(order));
    let kept = shop.store.order(confirmed.id).await.expect("a read").expect("an order");
    assert_eq!((kept.status, kept.sequence), (OrderStatus::Confirmed, 2));
    shop.assert_in_order().await;
}
