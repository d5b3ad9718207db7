//! What a batch of journal entries comes to: pure, and one for all databases.
//!
//! A store locks and reads what the batch [`Needs`], hands it over as a [`Snapshot`], and gets a [`Plan`]: which
//! entries fit what is there, each ledger row with its number and balances, and the rows to write. Because the rows
//! are locked, what the plan says is still true when it is written; the databases' own constraints back it up.
//!
//! Entries that take stock come before those that give some, so that nothing given in a batch hides a take that
//! should have been refused.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::domain::cart::{CartState, HoldState, LineChange};
use crate::domain::ids::{CartKey, IdMap, InventoryId, MovementId, OrderId, ProductId};
use crate::domain::order::OrderStatus;
use crate::domain::stock::{Balance, Change, StockError};
use crate::domain::timestamp::Timestamp;

use super::entry::{
    Applied, Committed, ConsumedMessage, Done, Entry, NewMovement, OrderChange, Refusal, SessionAction, SessionChange,
    Work,
};
use super::planned::{
    BalanceRow, ChangedHold, ChangedOrder, ChangedSession, MovementRow, OpenedHold, OpenedSession, RememberedRow,
    UntoldChange,
};
use super::records::{IdempotencyKey, NewEmail, Order};

/// A line: its cart, and its number there.
pub(super) type HoldKey = (CartKey, i64);

/// The rows that a batch is about, each kind in the order of its keys: the order in which they are to be locked.
#[derive(Debug, Default)]
pub(super) struct Needs {
    pub(super) sessions: BTreeSet<CartKey>,
    pub(super) orders: BTreeSet<OrderId>,
    pub(super) holds: BTreeSet<HoldKey>,
    pub(super) inventories: BTreeSet<InventoryId>,
    pub(super) products: BTreeSet<ProductId>,
    pub(super) keys: Vec<IdempotencyKey>,
    pub(super) messages: Vec<ConsumedMessage>,
}

impl Needs {
    /// What has to be read, and locked, before the batch can be planned.
    pub(super) fn of(batch: &[Work]) -> Self {
        let mut needs = Self::default();
        for work in batch {
            match work {
                Work::Load(inventory) => {
                    needs.inventories.insert(*inventory);
                }
                Work::Write(entry) => needs.add(entry),
            }
        }
        needs
    }

    fn add(&mut self, entry: &Entry) {
        if let Some(SessionChange { key, action: SessionAction::Touch { .. } | SessionAction::End { .. } }) =
            entry.session
        {
            self.sessions.insert(key);
            self.holds.extend(entry.lines.iter().filter_map(|line| match line {
                LineChange::Open(_) => None,
                LineChange::Resize { seen, .. } | LineChange::End(seen) => Some((key, seen.number)),
            }));
        }
        if let Some(OrderChange::Transition { id, .. }) = &entry.order {
            self.orders.insert(*id);
        }
        self.inventories.extend(entry.movements.iter().map(|movement| movement.inventory));
        self.products.extend(entry.products.iter().map(|(product, _)| *product));
        self.keys.extend(entry.remember.iter().map(|remember| remember.key.clone()));
        self.messages.extend(entry.message.iter().cloned());
    }
}

/// A cart session as it stands in the transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct SessionRow {
    pub(super) state: CartState,
    pub(super) version: i64,
    pub(super) expires_at: Timestamp,
}

/// An inventory as it stands in the transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct InventoryRow {
    pub(super) balance: Balance,
    pub(super) last_movement: MovementId,
}

/// What the transaction found, under its locks. What is not there is not in the map.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) sessions: IdMap<CartKey, SessionRow>,
    pub(super) orders: IdMap<OrderId, OrderStatus>,
    pub(super) holds: IdMap<HoldKey, (HoldState, i64)>,
    pub(super) inventories: IdMap<InventoryId, InventoryRow>,
    pub(super) products: IdMap<ProductId, i64>,
    pub(super) keys: HashSet<IdempotencyKey>,
    pub(super) messages: HashSet<ConsumedMessage>,
    /// The database's time.
    pub(super) now: Timestamp,
}

impl Snapshot {
    /// One in which nothing was found, for a store that adds to it.
    pub(super) fn empty() -> Self {
        Self {
            sessions: IdMap::default(),
            orders: IdMap::default(),
            holds: IdMap::default(),
            inventories: IdMap::default(),
            products: IdMap::default(),
            keys: HashSet::new(),
            messages: HashSet::new(),
            now: Timestamp(0),
        }
    }
}

/// What a batch comes to.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) now: Timestamp,
    done: Vec<Done>,
    pub(super) movements: Vec<MovementRow<'a>>,
    pub(super) balances: Vec<BalanceRow>,
    pub(super) opened_sessions: Vec<OpenedSession>,
    pub(super) changed_sessions: Vec<ChangedSession>,
    pub(super) opened_holds: Vec<OpenedHold>,
    pub(super) changed_holds: Vec<ChangedHold>,
    pub(super) placed_orders: Vec<Arc<Order>>,
    pub(super) changed_orders: Vec<ChangedOrder<'a>>,
    pub(super) untold: Vec<UntoldChange<'a>>,
    pub(super) mails: Vec<&'a NewEmail>,
    pub(super) remembered: Vec<RememberedRow<'a>>,
    pub(super) messages: Vec<&'a ConsumedMessage>,
    untouched: Vec<(InventoryId, Balance)>,
}

impl<'a> Plan<'a> {
    /// Decides each entry of the batch by what the snapshot says and by the entries decided before it.
    pub(super) fn of(batch: &'a [Work], snapshot: Snapshot) -> Self {
        let mut planner = Planner::new(batch.len(), snapshot);
        let takes = |work: &&(usize, &'a Work)| matches!(work.1, Work::Write(entry) if entry.takes_stock());
        let numbered: Vec<(usize, &Work)> = batch.iter().enumerate().collect();
        for (index, work) in numbered.iter().filter(takes).chain(numbered.iter().filter(|work| !takes(work))) {
            if let Work::Write(entry) = work {
                planner.plan.done[*index] = planner.decide(entry).map_or_else(Done::Refused, Done::Applied);
            }
        }
        planner.finish(batch)
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        !self.done.iter().any(|done| matches!(done, Done::Applied(_)))
    }

    /// Whether an entry is refused.
    pub(super) fn refuses(&self) -> bool {
        self.done.iter().any(|done| matches!(done, Done::Refused(_)))
    }

    /// The inventories that it changes, as they are once it is written.
    pub(super) fn inventories_after(&self) -> impl Iterator<Item = (InventoryId, InventoryRow)> {
        let row = |row: &BalanceRow| InventoryRow { balance: row.after, last_movement: row.last_movement };
        self.balances.iter().map(move |balance| (balance.id, row(balance)))
    }

    /// What to tell once it is committed.
    pub(super) fn into_committed(self) -> Committed {
        let touched = self.balances.iter().map(|row| (row.id, row.after));
        Committed { balances: touched.chain(self.untouched.iter().copied()).collect(), done: self.done, at: self.now }
    }
}

/// The snapshot as it is after the entries accepted so far, and the plan as far as it goes.
struct Planner<'a> {
    state: Snapshot,
    touched: IdMap<InventoryId, BalanceRow>,
    plan: Plan<'a>,
}

impl<'a> Planner<'a> {
    fn new(works: usize, state: Snapshot) -> Self {
        let plan = Plan {
            now: state.now,
            done: vec![Done::Loaded(None); works],
            movements: Vec::with_capacity(works),
            balances: Vec::new(),
            opened_sessions: Vec::new(),
            changed_sessions: Vec::new(),
            opened_holds: Vec::new(),
            changed_holds: Vec::new(),
            placed_orders: Vec::new(),
            changed_orders: Vec::new(),
            untold: Vec::new(),
            mails: Vec::new(),
            remembered: Vec::new(),
            messages: Vec::new(),
            untouched: Vec::new(),
        };
        Self { state, touched: IdMap::default(), plan }
    }

    /// Accepts an entry whole or refuses it and changes nothing.
    fn decide(&mut self, entry: &'a Entry) -> Result<Applied, Refusal> {
        self.check_names(entry)?;
        if let Some(session) = &entry.session {
            self.check_session(session)?;
            self.check_lines(session.key, entry)?;
        }
        if let Some(OrderChange::Transition { id, seen, .. }) = &entry.order
            && self.state.orders.get(id) != Some(seen)
        {
            return Err(Refusal::OrderChanged);
        }
        for (product, seen) in &entry.products {
            if self.state.products.get(product) != Some(seen) {
                return Err(Refusal::ProductChanged { product: *product });
            }
        }
        let applied = Applied { balances: self.balances_after(entry)?, at: self.state.now };
        self.accept(entry, &applied);
        Ok(applied)
    }

    fn check_names(&self, entry: &Entry) -> Result<(), Refusal> {
        if entry.remember.as_ref().is_some_and(|remember| self.state.keys.contains(&remember.key)) {
            return Err(Refusal::KeyKnown);
        }
        if entry.message.as_ref().is_some_and(|message| self.state.messages.contains(message)) {
            return Err(Refusal::MessageKnown);
        }
        Ok(())
    }

    fn check_session(&self, change: &SessionChange) -> Result<(), Refusal> {
        let (seen, wants_time_over) = match change.action {
            // A key that is there already is refused by the database.
            SessionAction::Open { .. } => return Ok(()),
            SessionAction::Touch { seen, .. } => (seen, Some(false)),
            SessionAction::End { seen, state } => match state {
                CartState::Ordered => (seen, Some(false)),
                CartState::Expired => (seen, Some(true)),
                CartState::Cleared => (seen, None),
                CartState::Open => return Err(Refusal::SessionChanged),
            },
        };
        let row = self.state.sessions.get(&change.key).ok_or(Refusal::SessionChanged)?;
        if row.state == CartState::Ordered {
            return Err(Refusal::AlreadyOrdered);
        }
        if row.state != CartState::Open || row.version != seen {
            return Err(Refusal::SessionChanged);
        }
        let time_over = row.expires_at <= self.state.now;
        if wants_time_over.is_some_and(|wanted| wanted != time_over) {
            return Err(Refusal::SessionTime);
        }
        Ok(())
    }

    fn check_lines(&self, cart: CartKey, entry: &Entry) -> Result<(), Refusal> {
        for change in &entry.lines {
            let seen = match change {
                LineChange::Open(_) => continue,
                LineChange::Resize { seen, .. } | LineChange::End(seen) => seen,
            };
            if self.state.holds.get(&(cart, seen.number)) != Some(&(HoldState::Open, seen.quantity)) {
                return Err(Refusal::HoldChanged);
            }
        }
        Ok(())
    }

    /// The balance after each movement of the entry; two movements of one inventory build on each other.
    fn balances_after(&self, entry: &Entry) -> Result<Vec<Balance>, Refusal> {
        let mut balances: Vec<Balance> = Vec::with_capacity(entry.movements.len());
        for (index, movement) in entry.movements.iter().enumerate() {
            let inventory = movement.inventory;
            let earlier = entry.movements[..index].iter().rposition(|earlier| earlier.inventory == inventory);
            let before = match earlier {
                Some(earlier) => balances[earlier],
                None => self.state.inventories.get(&inventory).ok_or(Refusal::UnknownInventory { inventory })?.balance,
            };
            let after = before.after(movement.stock_move.change()).map_err(|error| match error {
                StockError::Insufficient { available } => Refusal::InsufficientStock { inventory, available },
                StockError::Overflow => Refusal::StockOverflow { inventory },
                StockError::NotHeld => Refusal::HoldChanged,
            })?;
            balances.push(after);
        }
        Ok(balances)
    }

    fn accept(&mut self, entry: &'a Entry, applied: &Applied) {
        for (movement, after) in entry.movements.iter().zip(&applied.balances) {
            self.accept_movement(movement, *after);
        }
        if let Some(session) = &entry.session {
            self.accept_session(session);
            for line in &entry.lines {
                self.accept_line(session.key, line, entry.line_end.unwrap_or(HoldState::Released));
            }
        }
        match &entry.order {
            None => {}
            Some(OrderChange::Place(order)) => {
                self.plan.placed_orders.push(Arc::clone(order));
                self.plan.untold.push(UntoldChange {
                    order: order.id,
                    sequence: order.sequence,
                    from: None,
                    to: order.status,
                    at: order.created_at,
                    traceparent: entry.traceparent.as_deref(),
                });
            }
            Some(OrderChange::Transition { id, seen, to, sequence, payment_reference }) => {
                self.state.orders.insert(*id, *to);
                self.plan.untold.push(UntoldChange {
                    order: *id,
                    sequence: *sequence,
                    from: Some(*seen),
                    to: *to,
                    at: self.state.now,
                    traceparent: entry.traceparent.as_deref(),
                });
                let payment_reference = payment_reference.as_deref();
                self.plan.changed_orders.push(ChangedOrder { id: *id, seen: *seen, to: *to, payment_reference });
            }
        }
        self.plan.mails.extend(&entry.mails);
        if let Some(remember) = &entry.remember {
            self.state.keys.insert(remember.key.clone());
            let response = (remember.render)(applied);
            self.plan.remembered.push(RememberedRow {
                key: &remember.key,
                fingerprint: remember.fingerprint,
                response,
            });
        }
        if let Some(message) = &entry.message {
            self.state.messages.insert(message.clone());
            self.plan.messages.push(message);
        }
    }

    fn accept_movement(&mut self, movement: &'a NewMovement, after: Balance) {
        let id = movement.inventory;
        let Some(row) = self.state.inventories.get_mut(&id) else { return };
        let change = movement.stock_move.change();
        self.plan.movements.push(MovementRow { movement, previous: row.last_movement, change, after });
        *row = InventoryRow { balance: after, last_movement: movement.id };
        let fresh = BalanceRow { id, change: Change::default(), rows: 0, last_movement: movement.id, after };
        let touched = self.touched.entry(id).or_insert(fresh);
        touched.change.on_hand += change.on_hand;
        touched.change.held += change.held;
        touched.rows += 1;
        touched.last_movement = movement.id;
        touched.after = after;
    }

    fn accept_session(&mut self, session: &SessionChange) {
        let key = session.key;
        let (seen, state, new_expiry) = match session.action {
            SessionAction::Open { secret, created_at, expires_at } => {
                self.state.sessions.insert(key, SessionRow { state: CartState::Open, version: 1, expires_at });
                self.plan.opened_sessions.push(OpenedSession { key, secret, created_at, expires_at });
                return;
            }
            SessionAction::Touch { seen, expires_at } => (seen, CartState::Open, Some(expires_at)),
            SessionAction::End { seen, state } => (seen, state, None),
        };
        let Some(row) = self.state.sessions.get_mut(&key) else { return };
        *row = SessionRow { state, version: seen + 1, expires_at: new_expiry.unwrap_or(row.expires_at) };
        self.plan.changed_sessions.push(ChangedSession { key, state, seen, expires_at: new_expiry });
    }

    fn accept_line(&mut self, cart: CartKey, change: &LineChange, end: HoldState) {
        let (seen, quantity, state) = match change {
            LineChange::Open(line) => {
                self.state.holds.insert((cart, line.number), (HoldState::Open, line.quantity));
                self.plan.opened_holds.push(OpenedHold {
                    cart,
                    number: line.number,
                    product: line.product,
                    inventory: line.inventory,
                    quantity: line.quantity,
                });
                return;
            }
            LineChange::Resize { seen, quantity } => (seen, *quantity, HoldState::Open),
            LineChange::End(seen) => (seen, seen.quantity, end),
        };
        self.state.holds.insert((cart, seen.number), (state, quantity));
        self.plan.changed_holds.push(ChangedHold { cart, number: seen.number, seen: seen.quantity, quantity, state });
    }

    /// Sums the balances up and answers the loads with what the batch leaves.
    fn finish(mut self, batch: &[Work]) -> Plan<'a> {
        for (done, work) in self.plan.done.iter_mut().zip(batch) {
            if let Work::Load(inventory) = work {
                *done = Done::Loaded(self.state.inventories.get(inventory).map(|row| row.balance));
            }
        }
        // Who was refused for want of stock learns what there is.
        let untouched = self.state.inventories.iter().filter(|(id, _)| !self.touched.contains_key(id));
        self.plan.untouched = untouched.map(|(id, row)| (*id, row.balance)).collect();
        self.plan.balances = self.touched.into_values().collect();
        self.plan.balances.sort_unstable_by_key(|row| row.id);
        self.plan
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
