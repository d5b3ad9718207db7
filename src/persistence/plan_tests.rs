//! The rules that close the races, each against the planner alone.

use uuid::Uuid;

use super::*;
use crate::domain::cart::CartLine;
use crate::domain::stock::{Action, Move, Reason};
use crate::persistence::entry::Remember;
use crate::persistence::records::StoredResponse;

const NOW: Timestamp = Timestamp(1_000);

fn inventory(number: u128) -> InventoryId {
    InventoryId(Uuid::from_u128(number))
}

fn cart(number: u128) -> CartKey {
    CartKey(Uuid::from_u128(number))
}

fn snapshot() -> Snapshot {
    Snapshot { now: NOW, ..Snapshot::empty() }
}

fn with_stock(on_hand: i64, held: i64) -> Snapshot {
    let row =
        InventoryRow { balance: Balance { on_hand, held, seq: 7 }, last_movement: MovementId(Uuid::from_u128(70)) };
    Snapshot { inventories: IdMap::from_iter([(inventory(1), row)]), ..snapshot() }
}

fn movement(id: u128, stock_move: Move) -> NewMovement {
    NewMovement {
        id: MovementId(Uuid::from_u128(id)),
        inventory: inventory(1),
        stock_move,
        cart: None,
        order: None,
        reference: None,
        actor: "test".into(),
    }
}

fn stock_entry(id: u128, stock_move: Move) -> Work {
    Work::Write(Arc::new(Entry { movements: vec![movement(id, stock_move)], ..Entry::default() }))
}

fn receipt(units: i64) -> Move {
    Move { action: Action::In, reason: Reason::Receipt, units }
}

fn line(number: i64, quantity: i64) -> CartLine {
    CartLine {
        number,
        product: ProductId(Uuid::from_u128(5)),
        inventory: inventory(1),
        quantity,
        state: HoldState::Open,
    }
}

/// An entry that ends a session of one line as `state`.
fn ending(seen: i64, state: CartState, quantity: i64, stock_move: Move) -> Work {
    Work::Write(Arc::new(Entry {
        session: Some(SessionChange { key: cart(1), action: SessionAction::End { seen, state } }),
        lines: vec![LineChange::End(line(1, quantity))],
        line_end: Some(HoldState::Released),
        movements: vec![movement(1, stock_move)],
        ..Entry::default()
    }))
}

fn with_cart(state: CartState, version: i64, expires_at: i64, quantity: i64) -> Snapshot {
    let mut found = with_stock(10, 5);
    found.sessions.insert(cart(1), SessionRow { state, version, expires_at: Timestamp(expires_at) });
    found.holds.insert((cart(1), 1), (HoldState::Open, quantity));
    found
}

fn decide(batch: &[Work], found: Snapshot) -> Vec<Done> {
    Plan::of(batch, found).into_committed().done
}

fn refused(done: &Done) -> Option<&Refusal> {
    match done {
        Done::Refused(refusal) => Some(refusal),
        Done::Applied(_) | Done::Loaded(_) => None,
    }
}

#[test]
fn the_chain_goes_on_where_the_database_stands() {
    let batch = [stock_entry(1, Move::hold(2)), stock_entry(2, Move::hold(3)), stock_entry(3, Move::hold(6))];
    let plan = Plan::of(&batch, with_stock(10, 0));
    let rows: Vec<_> =
        plan.movements.iter().map(|row| (row.after.seq, row.after.held, row.previous.0.as_u128())).collect();
    assert_eq!(rows, [(8, 2, 70), (9, 5, 1)]);
    assert_eq!(plan.balances.len(), 1, "one row an inventory, however many entries");
    assert_eq!(plan.balances[0].change, Change { on_hand: 0, held: 5 });
    assert_eq!(plan.balances[0].rows, 2);
    let done = plan.into_committed().done;
    assert_eq!(refused(&done[2]), Some(&Refusal::InsufficientStock { inventory: inventory(1), available: 5 }));
}

#[test]
fn what_a_batch_gives_hides_no_take_of_it() {
    let batch = [stock_entry(1, receipt(100)), stock_entry(2, Move::hold(11))];
    let done = decide(&batch, with_stock(10, 0));
    assert!(matches!(done[0], Done::Applied(_)));
    assert_eq!(refused(&done[1]), Some(&Refusal::InsufficientStock { inventory: inventory(1), available: 10 }));
}

#[test]
fn an_entry_with_one_bad_line_leaves_nothing() {
    let mut found = with_stock(10, 0);
    let scarce =
        InventoryRow { balance: Balance { on_hand: 1, held: 0, seq: 1 }, last_movement: MovementId(Uuid::nil()) };
    found.inventories.insert(inventory(2), scarce);
    let second = NewMovement { inventory: inventory(2), ..movement(2, Move::hold(2)) };
    let both = Entry { movements: vec![movement(1, Move::hold(1)), second], ..Entry::default() };
    let batch = [Work::Write(Arc::new(both))];
    let plan = Plan::of(&batch, found);
    assert!(plan.is_empty());
    assert!(plan.movements.is_empty() && plan.balances.is_empty());
    let told: BTreeSet<InventoryId> = plan.into_committed().balances.into_iter().map(|(id, _)| id).collect();
    assert_eq!(told, BTreeSet::from([inventory(1), inventory(2)]), "but what there is is told");
}

#[test]
fn a_stale_release_is_refused_whatever_the_balance_allows() {
    let batch = [ending(1, CartState::Cleared, 5, Move::release(5))];
    let done = decide(&batch, with_cart(CartState::Open, 1, 2_000, 3));
    assert_eq!(refused(&done[0]), Some(&Refusal::HoldChanged));
}

#[test]
fn a_session_ends_once_in_a_batch() {
    let batch = [
        ending(1, CartState::Cleared, 5, Move::release(5)),
        ending(1, CartState::Ordered, 5, Move::sell(5)),
        ending(1, CartState::Cleared, 5, Move::release(5)),
    ];
    let done = decide(&batch, with_cart(CartState::Open, 1, 2_000, 5));
    assert!(matches!(done[0], Done::Applied(_)));
    assert_eq!(refused(&done[1]), Some(&Refusal::SessionChanged));
    assert_eq!(refused(&done[2]), Some(&Refusal::SessionChanged));
}

#[test]
fn the_databases_time_decides_between_checkout_and_expiry() {
    for (expires_at, over) in [(NOW.0 - 1, true), (NOW.0, true), (NOW.0 + 1, false)] {
        let checkout = [ending(1, CartState::Ordered, 5, Move::sell(5))];
        let expiry = [ending(1, CartState::Expired, 5, Move::expire(5))];
        let found = || with_cart(CartState::Open, 1, expires_at, 5);
        let (checkout, expiry) = (decide(&checkout, found()), decide(&expiry, found()));
        let (wins, loses) = if over { (&expiry, &checkout) } else { (&checkout, &expiry) };
        assert!(matches!(wins[0], Done::Applied(_)), "at {expires_at}");
        assert_eq!(refused(&loses[0]), Some(&Refusal::SessionTime), "at {expires_at}");
    }
}

#[test]
fn a_cart_that_became_an_order_says_so() {
    let batch = [ending(1, CartState::Ordered, 5, Move::sell(5))];
    let done = decide(&batch, with_cart(CartState::Ordered, 2, 2_000, 5));
    assert_eq!(refused(&done[0]), Some(&Refusal::AlreadyOrdered));
}

#[test]
fn an_order_changes_from_what_was_seen() {
    let id = OrderId(Uuid::from_u128(9));
    let cancel = |entry_id| {
        Work::Write(Arc::new(Entry {
            movements: vec![movement(entry_id, Move::restock(2))],
            order: Some(OrderChange::Transition {
                id,
                seen: OrderStatus::Pending,
                to: OrderStatus::Cancelled,
                sequence: 2,
                payment_reference: None,
            }),
            ..Entry::default()
        }))
    };
    let mut found = with_stock(10, 0);
    found.orders.insert(id, OrderStatus::Pending);
    let done = decide(&[cancel(1), cancel(2)], found);
    assert!(matches!(done[0], Done::Applied(_)));
    assert_eq!(refused(&done[1]), Some(&Refusal::OrderChanged), "restocked once");
}

#[test]
fn a_key_and_a_message_have_their_effect_once() {
    let named = |id| {
        let key = IdempotencyKey { scope: "s".into(), key: "k".into() };
        let response = |applied: &Applied| StoredResponse {
            status: 200,
            headers: Vec::new(),
            body: applied.balances[0].on_hand.to_string(),
        };
        let remember = Remember { key, fingerprint: [0; 32], render: Arc::new(response) };
        Work::Write(Arc::new(Entry {
            movements: vec![movement(id, receipt(1))],
            remember: Some(remember),
            ..Entry::default()
        }))
    };
    let batch = [named(1), named(2)];
    let plan = Plan::of(&batch, with_stock(10, 0));
    assert_eq!(plan.remembered[0].response.body, "11", "the answer tells what the transaction came to");
    assert_eq!(refused(&plan.into_committed().done[1]), Some(&Refusal::KeyKnown));

    let message = ConsumedMessage { queue: "update-inventory", id: "m1".into() };
    let told = |id| {
        let message = Some(message.clone());
        Work::Write(Arc::new(Entry { movements: vec![movement(id, receipt(1))], message, ..Entry::default() }))
    };
    let done = decide(&[told(1), told(2)], with_stock(10, 0));
    assert!(matches!(done[0], Done::Applied(_)));
    assert_eq!(refused(&done[1]), Some(&Refusal::MessageKnown));
}

#[test]
fn a_load_sees_what_the_batch_leaves() {
    let batch = [Work::Load(inventory(1)), stock_entry(1, Move::hold(4)), Work::Load(inventory(2))];
    let committed = Plan::of(&batch, with_stock(10, 0)).into_committed();
    assert_eq!(committed.done[0], Done::Loaded(Some(Balance { on_hand: 10, held: 4, seq: 8 })));
    assert_eq!(committed.done[2], Done::Loaded(None));
    assert_eq!(committed.balances.len(), 1);
}

#[test]
fn a_product_that_changed_since_is_named() {
    let product = ProductId(Uuid::from_u128(5));
    let entry = Entry { products: vec![(product, 3)], ..Entry::default() };
    let mut found = snapshot();
    found.products.insert(product, 4);
    let done = decide(&[Work::Write(Arc::new(entry))], found);
    assert_eq!(refused(&done[0]), Some(&Refusal::ProductChanged { product }));
}
