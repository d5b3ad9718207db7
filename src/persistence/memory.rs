//! What a journal expects to find without having looked (docs/adr/0009).
//!
//! An entry names what it saw of sessions, holds, orders and products; what the stock is, the journal knows from its own
//! last commits. As long as nobody else writes the same rows, that is how things are. The statements that write a batch
//! name all of it, so they see whether it is; when it is not, the batch is done again, by looking first.

use std::collections::HashMap;

use crate::domain::ids::InventoryId;
use crate::domain::timestamp::Timestamp;

use super::entry::Work;
use super::plan::{InventoryRow, Plan, Snapshot};

/// Inventories that are remembered at most; beyond it all are forgotten.
const INVENTORIES_MAX: usize = 65_536;

/// What a journal knows of the stock from its last commits.
#[derive(Debug, Default)]
pub(super) struct Memory {
    inventories: HashMap<InventoryId, InventoryRow>,
}

impl Memory {
    /// What a batch will find at `now`, if it can be told beforehand.
    pub(super) fn expect(&self, works: &[Work], now: Timestamp) -> Option<Snapshot> {
        Snapshot::expected(works, &self.inventories, now)
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
