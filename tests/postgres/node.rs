//! One server's store, and the entries that its journal would write.

use std::sync::Arc;
use std::time::Duration;

use storekeeper::domain::cart::{Cart, HoldState, Lifetime, Limits, LineChange};
use storekeeper::domain::ids::{CartKey, CartSessionId, InventoryId, MovementId};
use storekeeper::domain::stock::{Action, Balance, Move, Reason};
use storekeeper::domain::timestamp::Timestamp;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::entry::{
    Applied, Committed, Done, Entry, NewMovement, Refusal, SessionAction, SessionChange, Work,
};
use storekeeper::persistence::postgres::{PostgresOptions, PostgresStore};
use storekeeper::persistence::{CommitError, Inventories, Journal, Upkeep};
use uuid::Uuid;

use crate::stock::Stock;

const LIFETIME: Lifetime = Lifetime { ttl: Duration::from_secs(900), max_age: Duration::from_secs(3600) };
const LIMITS: Limits = Limits { lines: 100, units: 10_000 };

/// A server's store.
pub(crate) struct Node {
    pub(crate) store: PostgresStore,
    pub(crate) clock: Clock,
}

impl Node {
    pub(crate) async fn on(url: &str) -> Self {
        let clock = Clock::system();
        let options = PostgresOptions { url: url.to_owned(), pool: 4 };
        let store = PostgresStore::open(options, clock.clone()).await.expect("a store");
        Self { store, clock }
    }

    /// A product with so much stock.
    pub(crate) async fn stock(&self, quantity: i64) -> Stock {
        Stock::new(&self.store, quantity, self.clock.now()).await
    }

    pub(crate) async fn balance(&self, stock: &Stock) -> Balance {
        self.store.inventory(stock.inventory).await.expect("a read").expect("an inventory").balance
    }

    pub(crate) async fn commit(&self, entries: Vec<Entry>) -> Result<Committed, CommitError> {
        self.store.commit(Uuid::now_v7(), &works(entries)).await
    }

    /// Writes one entry, which must fit.
    pub(crate) async fn write(&self, entry: Entry) -> Applied {
        match self.decided(vec![entry]).await.pop() {
            Some(Done::Applied(applied)) => applied,
            other => panic!("not written: {other:?}"),
        }
    }

    /// What becomes of entries of one batch.
    pub(crate) async fn decided(&self, entries: Vec<Entry>) -> Vec<Done> {
        self.commit(entries).await.expect("a commit").done
    }

    /// A new cart that holds so many units.
    pub(crate) async fn cart(&self, stock: &Stock, units: i64) -> Cart {
        let (cart, entry) = new_cart(stock, units, self.clock.now());
        self.write(entry).await;
        cart
    }

    /// No rule of the books is broken.
    pub(crate) async fn assert_in_order(&self) {
        let verdicts = self.store.check().await.expect("verdicts");
        let broken: Vec<_> = verdicts.iter().filter(|verdict| verdict.broken_count > 0).collect();
        assert!(!verdicts.is_empty() && broken.is_empty(), "{broken:#?}");
    }
}

pub(crate) fn works(entries: Vec<Entry>) -> Vec<Work> {
    entries.into_iter().map(|entry| Work::Write(Arc::new(entry))).collect()
}

/// What refused an entry; `None` when it was written.
pub(crate) fn refusal(done: &Done) -> Option<&Refusal> {
    match done {
        Done::Refused(refusal) => Some(refusal),
        Done::Applied(_) | Done::Loaded(_) => None,
    }
}

/// Units that come in, or go out when there are less than none.
pub(crate) fn moved(stock: &Stock, units: i64) -> Entry {
    let (action, reason) = if units < 0 { (Action::Out, Reason::Adjustment) } else { (Action::In, Reason::Receipt) };
    let stock_move = Move { action, reason, units: units.abs() };
    Entry { movements: vec![movement(stock.inventory, stock_move, None)], ..Entry::default() }
}

/// A cart that begins with so many units, and the entry that begins it.
pub(crate) fn new_cart(stock: &Stock, units: i64, now: Timestamp) -> (Cart, Entry) {
    let id = CartSessionId { key: CartKey(Uuid::now_v7()), secret: [7; 16] };
    let fresh = Cart::fresh(id, now, LIFETIME);
    let line = fresh.add(stock.product, stock.inventory, units, LIMITS).expect("within limits");
    let (cart, expires_at) = (fresh.changed(Some(line), now, LIFETIME), fresh.expires_at);
    let action = SessionAction::Open { secret: id.secret, created_at: now, expires_at };
    (cart, entry_of(id.key, action, line, Move::hold(units)))
}

/// The cart with another quantity of its product, and the entry that makes it so.
pub(crate) fn resized(cart: &Cart, stock: &Stock, units: i64, now: Timestamp) -> (Cart, Entry) {
    let line = cart.set(stock.product, units, LIMITS).expect("within limits").expect("a change");
    let after = cart.changed(Some(line), now, LIFETIME);
    let action = SessionAction::Touch { seen: cart.version, expires_at: after.expires_at };
    let taken = line.units_taken();
    let stock_move = if taken > 0 { Move::hold(taken) } else { Move::release(-taken) };
    (after, entry_of(cart.id.key, action, line, stock_move))
}

fn entry_of(cart: CartKey, action: SessionAction, line: LineChange, stock_move: Move) -> Entry {
    Entry {
        session: Some(SessionChange { key: cart, action }),
        lines: vec![line],
        line_end: Some(HoldState::Released),
        movements: vec![movement(line.inventory(), stock_move, Some(cart))],
        ..Entry::default()
    }
}

fn movement(inventory: InventoryId, stock_move: Move, cart: Option<CartKey>) -> NewMovement {
    let id = MovementId(Uuid::now_v7());
    NewMovement { id, inventory, stock_move, cart, order: None, reference: None, actor: "test".into() }
}
