//! A change of stock by hand or by a warehouse system: one movement, accepted by the inventory's actor.

use std::sync::Arc;

use uuid::Uuid;

use crate::domain::ids::MovementId;
use crate::domain::stock::{Action, Move};
use crate::persistence::entry::{Applied, ConsumedMessage, Entry, NewMovement, Remember};
use crate::persistence::records::Inventory;

use super::command::{AppliedOutcome, Command, CommandError, StockView};
use super::inventories::Inventories;
use super::shop::StockRequest;

/// Has the change written, once for `message` when it came as one.
pub(super) async fn change(
    inventories: &Inventories,
    request: StockRequest,
    message: Option<ConsumedMessage>,
    command: Command<StockView>,
) -> Result<StockView, CommandError> {
    let record = Arc::new(inventories.read(request.inventory, command.deadline).await?.inventory);
    let remember = command.remember.map(|named| {
        let (render, record) = (named.render, Arc::clone(&record));
        let with_balance = move |applied: &Applied| render(&after(&record, applied));
        Remember { key: named.key, fingerprint: named.fingerprint, render: Arc::new(with_balance) }
    });
    let stock_move = Move { action: request.action, reason: request.reason, units: request.units };
    let movement = NewMovement {
        id: MovementId(Uuid::now_v7()),
        inventory: request.inventory,
        stock_move,
        cart: None,
        order: None,
        reference: request.reference,
        actor: command.actor,
    };
    let entry = Entry { movements: vec![movement], remember, message, ..Entry::default() };
    let takes = match request.action {
        Action::In => 0,
        Action::Out => request.units,
    };
    let applied = inventories.change(request.inventory, entry, takes, command.deadline).await?;
    if applied.balances.is_empty() {
        return Err(CommandError::ActorDied { applied: AppliedOutcome::Unknown });
    }
    Ok(after(&record, &applied))
}

/// The record as the change left it.
fn after(before: &Inventory, applied: &Applied) -> StockView {
    let balance = applied.balances.first().copied().unwrap_or(before.balance);
    let inventory = Inventory { balance, updated_at: applied.at, ..before.clone() };
    StockView { inventory, available: balance.available() }
}
