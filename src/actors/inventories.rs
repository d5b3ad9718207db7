//! The way to all inventory actors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::domain::ids::InventoryId;
use crate::observability::trace;
use crate::persistence::entry::{Applied, Entry};

use super::command::{AppliedOutcome, CommandError, StockView};
use super::inventory::{BALANCE_AGE_MAX, ChangeStock, InventoryActor, InventoryParts, ReadStock};
use super::journal::JournalError;
use super::registry::{Birth, Registry};

/// The way to all inventory actors.
#[derive(Clone)]
pub struct Inventories {
    parts: Arc<InventoryParts>,
}

impl Inventories {
    /// Actors made of these parts.
    #[must_use]
    pub fn new(parts: InventoryParts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// Where they are listed.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry<InventoryId, InventoryActor>> {
        &self.parts.registry
    }

    /// Has an entry written that changes one inventory's stock: accepted or refused by its actor from memory, then
    /// made durable by the journal. `takes`: units it takes from what is available.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn change(
        &self,
        inventory: InventoryId,
        entry: Entry,
        takes: i64,
        deadline: Instant,
    ) -> Result<Applied, JournalError> {
        let (answer, outcome) = oneshot::channel();
        let message = ChangeStock { entry, takes, deadline, span: trace::here(), answer };
        let posted = self.parts.registry.post(inventory, message, self.actor(inventory));
        posted.map_err(|(_, unposted)| JournalError::Unposted(unposted))?;
        outcome.await.unwrap_or(Err(JournalError::Died))
    }

    /// What an inventory's actor knows; nobody waits for it after `deadline`.
    ///
    /// # Errors
    /// [`CommandError::InventoryNotFound`]; or that the actor could not say.
    pub async fn read(&self, inventory: InventoryId, deadline: Instant) -> Result<StockView, CommandError> {
        let age_max = self.parts.store.is_shared().then_some(BALANCE_AGE_MAX);
        if let Some(view) = self.parts.boards.look(inventory, age_max) {
            return Ok(view);
        }
        let (answer, view) = oneshot::channel();
        let posted = self.parts.registry.post(inventory, ReadStock { deadline, answer }, self.actor(inventory));
        posted.map_err(|(_, unposted)| CommandError::Unposted(unposted))?;
        view.await.unwrap_or(Err(CommandError::ActorDied { applied: AppliedOutcome::No }))
    }

    /// Lets go what had no message for `idle`, and ends what hangs.
    pub(super) fn passivate_idle(&self, idle: Duration) {
        self.parts.registry.passivate_idle(idle);
        self.parts.boards.tidy();
    }

    fn actor(&self, inventory: InventoryId) -> impl Fn(Birth) -> InventoryActor + Clone + Send + 'static {
        let parts = Arc::clone(&self.parts);
        move |birth| InventoryActor::new(inventory, Arc::clone(&parts), birth)
    }
}
