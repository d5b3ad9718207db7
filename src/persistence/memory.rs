//! What a journal expects to find without having looked (docs/adr/0009).
//!
//! An entry names what it saw of sessions, holds, orders and products; what the stock is, the journal knows from its own
//! last commits. As long as nobody else writes the same rows, that is how things are. The statements that write a batch
//! name all of it, so they see whether it is; when it is not, the batch is done again, by looking first.

use std::collections::{BTreeSet, hash_map};

use crate::domain::cart::{CartState, HoldState, LineChange};
use crate::domain::ids::{IdMap, IdSet, InventoryId};
use crate::domain::timestamp::Timestamp;

use super::entry::{Entry, OrderChange, SessionAction, Work};
use super::plan::{InventoryRow, Plan, SessionRow, Snapshot};

/// Inventories that are remembered at most; beyond it all are forgotten.
const INVENTORIES_MAX: usize = 65_536;

/// What a journal knows of the stock from its last commits.
#[derive(Debug, Default)]
pub(super) struct Memory {
    inventories: IdMap<InventoryId, InventoryRow>,
}

impl Memory {
    /// What a batch will find at `now`, if it can be told beforehand; `read` is what was read of the stock just now.
    pub(super) fn expect(
        &self,
        works: &[Work],
        read: IdMap<InventoryId, InventoryRow>,
        now: Timestamp,
    ) -> Option<Snapshot> {
        Snapshot::expected(works, read, &self.inventories, now)
    }

    /// The inventories that have to be read before it can be told what a batch will find: those that are only to be read,
    /// and those that are to be changed and not known.
    pub(super) fn unread(&self, works: &[Work]) -> BTreeSet<InventoryId> {
        let written = works.iter().filter_map(|work| match work {
            Work::Write(entry) => Some(&entry.movements),
            Work::Load(_) => None,
        });
        let changed: IdSet<InventoryId> = written.flatten().map(|movement| movement.inventory).collect();
        let loaded = works.iter().filter_map(|work| match work {
            Work::Load(inventory) => Some(*inventory),
            Work::Write(_) => None,
        });
        let unknown = changed.iter().copied().filter(|inventory| !self.inventories.contains_key(inventory));
        // What is changed too is told as the change leaves it.
        unknown.chain(loaded.filter(|inventory| !changed.contains(inventory))).collect()
    }

    /// The plan was committed.
    pub(super) fn committed(&mut self, plan: &Plan<'_>) {
        if self.inventories.len() > INVENTORIES_MAX {
            self.inventories.clear();
        }
        self.inventories.extend(plan.inventories_after());
    }

    /// It is not known how things are.
    pub(super) fn forget(&mut self) {
        self.inventories.clear();
    }
}

impl Snapshot {
    /// What a transaction will find at `now` if everything is as the entries say that they saw it, and the stock as it is
    /// `known`, or `read`. `None` when that does not say all that the batch needs, or says two things of one row.
    fn expected(
        batch: &[Work],
        read: IdMap<InventoryId, InventoryRow>,
        known: &IdMap<InventoryId, InventoryRow>,
        now: Timestamp,
    ) -> Option<Self> {
        let mut found = Self { now, inventories: read, ..Self::empty() };
        for work in batch {
            if let Work::Write(entry) = work {
                found.expect(entry, known)?;
            }
        }
        Some(found)
    }

    fn expect(&mut self, entry: &Entry, known: &IdMap<InventoryId, InventoryRow>) -> Option<()> {
        let seen = entry.session.and_then(|session| match session.action {
            SessionAction::Open { .. } => None,
            SessionAction::Touch { seen, .. } => Some((session.key, seen, i64::MAX)),
            SessionAction::End { seen, state: CartState::Expired } => Some((session.key, seen, i64::MIN)),
            SessionAction::End { seen, .. } => Some((session.key, seen, i64::MAX)),
        });
        if let Some((key, version, expires_at)) = seen {
            let session = SessionRow { state: CartState::Open, version, expires_at: Timestamp(expires_at) };
            only(self.sessions.insert(key, session))?;
            for line in &entry.lines {
                if let LineChange::Resize { seen, .. } | LineChange::End(seen) = line {
                    only(self.holds.insert((key, seen.number), (HoldState::Open, seen.quantity)))?;
                }
            }
        }
        if let Some(OrderChange::Transition { id, seen, .. }) = &entry.order {
            only(self.orders.insert(*id, *seen))?;
        }
        for (product, seen) in &entry.products {
            if self.products.insert(*product, *seen).is_some_and(|other| other != *seen) {
                return None;
            }
        }
        for movement in &entry.movements {
            if let hash_map::Entry::Vacant(place) = self.inventories.entry(movement.inventory) {
                place.insert(*known.get(&movement.inventory)?);
            }
        }
        Some(())
    }
}

/// Nothing, if nothing was there.
fn only<T>(before: Option<T>) -> Option<()> {
    before.is_none().then_some(())
}
