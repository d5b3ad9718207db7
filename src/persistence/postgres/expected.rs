//! When the journal may expect to find things as it knows them, on a database that several servers share.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::domain::ids::{IdMap, InventoryId, ProductId};
use crate::domain::timestamp::Timestamp;
use crate::persistence::entry::Work;
use crate::persistence::memory::Memory;
use crate::persistence::plan::{InventoryRow, Needs, Plan, Snapshot};

/// After an expectation was wrong, somebody else is at work on the same rows: for so long the journal looks first.
const DOUBT: Duration = Duration::from_secs(1);
/// A connection that was idle for so long may have been lost meanwhile. Of a transaction of several statements the first
/// one finds out; of a single one it would not be known whether it was done.
const TRUSTED_IDLE: Duration = Duration::from_millis(500);

/// What a batch is expected to meet, besides the stock.
pub(super) struct Expected<'a> {
    /// The rows that it is about, to be locked.
    pub(super) needs: &'a Needs,
    /// The products that its entries saw, and in which version, in the order of their identifiers.
    pub(super) products: Vec<(ProductId, i64)>,
}

/// What is expected, and whether to rely on it.
#[derive(Debug, Default)]
pub(super) struct Expectation {
    memory: Memory,
    doubted: Option<Instant>,
    committed: Option<Instant>,
}

impl Expectation {
    /// Whether to rely on it now.
    pub(super) fn is_trusted(&self) -> bool {
        let recently = |event: Option<Instant>, span| event.is_some_and(|at: Instant| at.elapsed() < span);
        !recently(self.doubted, DOUBT) && recently(self.committed, TRUSTED_IDLE)
    }

    /// The inventories of which the batch needs to know more than is known.
    pub(super) fn unread(&self, works: &[Work]) -> BTreeSet<InventoryId> {
        self.memory.unread(works)
    }

    /// What the batch will find at `now`, if it can be told beforehand, with what was `read` just now.
    pub(super) fn of<'a>(
        &self,
        works: &[Work],
        needs: &'a Needs,
        read: IdMap<InventoryId, InventoryRow>,
        now: Timestamp,
    ) -> Option<(Expected<'a>, Snapshot)> {
        let snapshot = self.memory.expect(works, read, now)?;
        let mut products: Vec<(ProductId, i64)> = snapshot.products.iter().map(|(id, seen)| (*id, *seen)).collect();
        products.sort_unstable();
        Some((Expected { needs, products }, snapshot))
    }

    /// The plan was committed.
    pub(super) fn committed(&mut self, plan: &Plan<'_>) {
        self.memory.committed(plan);
        self.committed = Some(Instant::now());
    }

    /// Something was not as it was expected.
    pub(super) fn failed(&mut self) {
        self.memory.forget();
        self.doubted = Some(Instant::now());
    }

    /// It is not known how things are.
    pub(super) fn forget(&mut self) {
        self.memory.forget();
        self.committed = None;
    }
}
