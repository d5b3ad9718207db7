//! Batches: handed in again when nobody knows what became of them.

use std::sync::Arc;

use storekeeper::domain::cart::{CartState, HoldState, LineChange};
use storekeeper::domain::stock::{Action, Balance, Move, Reason};
use storekeeper::persistence::CommitError;
use storekeeper::persistence::entry::{Done, Entry, Refusal, SessionAction, SessionChange, Work};
use storekeeper::persistence::records::{Order, ProductChange, ProductPatch};
use uuid::Uuid;

use crate::shop::{Shop, Stocked, movement, new_user, page, placing};

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

/// Carts are opened by one batch and become orders by another; each is kept as it was told, whether all say the same or not.
async fn many_at_once(shop: &Shop, carts: &[&[(&Stocked, i64)]], addresses: &[Option<&str>]) {
    let opened: Vec<_> = carts.iter().map(|lines| shop.put(&shop.fresh_cart(), &lines[0])).collect();
    let (mut filled, entries): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
    shop.write_at_once(entries).await;
    for (cart, lines) in filled.iter_mut().zip(carts) {
        for line in &lines[1..] {
            let (after, entry) = shop.put(cart, line);
            shop.write(entry).await;
            *cart = after;
        }
        let kept = shop.store.cart(cart.id.key).await.expect("a read").expect("a cart").cart;
        assert_eq!(kept, *cart);
    }
    let mut orders = Vec::new();
    for (cart, address) in filled.iter().zip(addresses) {
        let placed = shop.order_of(cart, new_user()).await;
        orders.push(Order { shipping_address: address.map(str::to_owned), ..placed });
    }
    shop.write_at_once(filled.iter().zip(&orders).map(|(cart, order)| placing(cart, order)).collect()).await;
    for (cart, order) in filled.iter().zip(orders) {
        let kept = shop.store.cart(cart.id.key).await.expect("a read").expect("a cart");
        assert_eq!(
            (kept.cart.state, kept.cart.version, kept.order),
            (CartState::Ordered, cart.version + 1, Some(order.id))
        );
        assert_eq!(shop.store.order(order.id).await.expect("a read"), Some(order));
    }
    shop.assert_in_order().await;
}

pub(crate) async fn what_is_written_at_once_is_each_as_it_was_told(shop: &Shop) {
    let (lamp, table) = (shop.stocked("L-1", 100).await, shop.stocked("T-1", 100).await);
    let address = Some(r#"{"street":"Elm Street 1"}"#);
    many_at_once(shop, &[&[(&lamp, 1)], &[(&lamp, 1)], &[(&lamp, 1)]], &[address; 3]).await;
    many_at_once(shop, &[&[(&lamp, 2)], &[(&table, 2)], &[(&lamp, 2)]], &[None; 3]).await;
    many_at_once(shop, &[&[(&lamp, 3)], &[(&table, 1), (&lamp, 2)], &[(&lamp, 4)]], &[address, None, None]).await;
    let history = shop.store.movements(lamp.inventory, &page(None, 100)).await.expect("a page").rows;
    let told: Vec<_> = history.iter().rev().map(|row| (row.seq, row.reason, row.units, row.order.is_some())).collect();
    let (hold, sale) = (Reason::Hold, Reason::Sale);
    let rows = [(Reason::Initial, 100, false), (hold, 1, false), (hold, 1, false), (hold, 1, false)];
    let rows = rows.into_iter().chain([(sale, 1, true), (sale, 1, true), (sale, 1, true)]);
    let rows = rows.chain([(hold, 2, false), (hold, 2, false), (sale, 2, true), (sale, 2, true)]);
    let rows = rows.chain([(hold, 3, false), (hold, 4, false), (hold, 2, false)]);
    let rows = rows.chain([(sale, 3, true), (sale, 2, true), (sale, 4, true)]);
    let wanted: Vec<_> = (1..).zip(rows).map(|(seq, (reason, units, sold))| (seq, reason, units, sold)).collect();
    assert_eq!(told, wanted);
}
