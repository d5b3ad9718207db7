//! What this program does with the messages of its own queues, each once by its id.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::domain::timestamp::Timestamp;
use crate::messaging::bus::{ConsumeError, Consumer, DeadLetters, Message};
use crate::messaging::documents::{ClearCartDocument, OrderDocument, StockRequestDocument};
use crate::messaging::{CLEAR_CART, SEND_EMAIL, UPDATE_INVENTORY};
use crate::persistence::clock::Clock;
use crate::persistence::entry::ConsumedMessage;
use crate::persistence::records::{DeadLetter, EmailStatus, NewEmail};
use crate::persistence::{SharedStore, StoreError};

use super::carts::Carts;
use super::command::{Command, CommandError};
use super::inventories::Inventories;
use super::mailbox::Unposted;
use super::mailer::{MailRoom, MailerHandle};
use super::shop::StockRequest;
use super::stock_change;

/// How long one message may take. Nobody waits for it but those behind it, so it may be long.
const DEADLINE: Duration = Duration::from_secs(30);

/// `send-email`: keeps the order's confirmation, and has it sent where there is a mail server.
pub struct MailConsumer {
    /// Where mails are kept.
    pub store: SharedStore,
    /// The time that decides.
    pub clock: Clock,
    /// Makes the mails.
    pub mail: Arc<MailRoom>,
    /// Sends them.
    pub mailer: MailerHandle,
}

#[async_trait]
impl Consumer for MailConsumer {
    fn queue(&self) -> &'static str {
        SEND_EMAIL
    }

    async fn consume(&self, messages: &[Message]) -> Vec<Result<(), ConsumeError>> {
        let now = self.clock.now();
        let mut mails: Vec<(String, NewEmail)> = Vec::with_capacity(messages.len());
        let mut written: Vec<Result<(), ConsumeError>> = Vec::with_capacity(messages.len());
        for message in messages {
            written.push(self.mail(message, now).map(|mail| mails.push((message.id.clone(), mail))));
        }
        let kept = self.store.keep_mails_once(SEND_EMAIL, &mails, now).await;
        if self.mail.status() == EmailStatus::Queued && matches!(kept, Ok(count) if count > 0) {
            self.mailer.wake();
        }
        let kept = kept.map(|_| ()).map_err(not_now);
        written.into_iter().map(|written| written.and_then(|()| kept.clone())).collect()
    }
}

impl MailConsumer {
    /// The mail that a message asks for.
    fn mail(&self, message: &Message, now: Timestamp) -> Result<NewEmail, ConsumeError> {
        let order = OrderDocument::read(&message.payload).map_err(|error| ConsumeError::Refused(error.to_string()))?;
        self.mail.order_confirmation(&order, now).map_err(|error| ConsumeError::Refused(error.to_string()))
    }
}

/// `clear-cart`: lets the used session's actor go. The session itself ended with the order; an open one is left alone.
pub struct CartConsumer {
    /// Where the carts are.
    pub carts: Carts,
}

#[async_trait]
impl Consumer for CartConsumer {
    fn queue(&self) -> &'static str {
        CLEAR_CART
    }

    async fn consume(&self, messages: &[Message]) -> Vec<Result<(), ConsumeError>> {
        let clear = |message: &Message| {
            let document =
                ClearCartDocument::read(&message.payload).map_err(|error| ConsumeError::Refused(error.to_string()))?;
            self.carts.forget(document.cart_session_id.key);
            Ok(())
        };
        messages.iter().map(clear).collect()
    }
}

/// `update-inventory`: a change of stock, by the rules of `PUT /inventories/{id}`.
pub struct StockConsumer {
    /// Where stock is.
    pub inventories: Inventories,
}

#[async_trait]
impl Consumer for StockConsumer {
    fn queue(&self) -> &'static str {
        UPDATE_INVENTORY
    }

    async fn consume(&self, messages: &[Message]) -> Vec<Result<(), ConsumeError>> {
        let mut outcomes = Vec::with_capacity(messages.len());
        for message in messages {
            let outcome = match outcomes.last() {
                // What follows one that has to wait waits behind it: in its order, and without a deadline for each.
                Some(Err(ConsumeError::NotNow(reason))) => Err(ConsumeError::NotNow(reason.clone())),
                Some(Ok(()) | Err(ConsumeError::Refused(_))) | None => self.update(message).await,
            };
            outcomes.push(outcome);
        }
        outcomes
    }
}

impl StockConsumer {
    async fn update(&self, message: &Message) -> Result<(), ConsumeError> {
        let document =
            StockRequestDocument::read(&message.payload).map_err(|error| ConsumeError::Refused(error.to_string()))?;
        let request = StockRequest {
            inventory: document.inventory,
            action: document.action,
            units: document.units,
            reason: document.reason,
            reference: document.reference,
        };
        let command =
            Command { deadline: Instant::now() + DEADLINE, actor: Arc::from(UPDATE_INVENTORY), remember: None };
        let once = ConsumedMessage { queue: UPDATE_INVENTORY, id: message.id.clone() };
        match stock_change::change(&self.inventories, request, Some(once), command).await {
            Ok(_) | Err(CommandError::MessageKnown) => Ok(()),
            Err(error) if is_a_rules_refusal(&error) => Err(ConsumeError::Refused(error.to_string())),
            Err(error) => Err(ConsumeError::NotNow(error.to_string())),
        }
    }
}

/// Whether another delivery would be refused just the same.
fn is_a_rules_refusal(error: &CommandError) -> bool {
    let by_the_database = |source: &StoreError| matches!(source, StoreError::Constraint(_));
    matches!(
        error,
        CommandError::InventoryNotFound
            | CommandError::InsufficientStock { .. }
            | CommandError::StockOverflow
            // Nobody knows when it ends, and the others behind this message are not to wait for it.
            | CommandError::Unposted(Unposted::Quarantined { .. })
    ) || matches!(error, CommandError::Store { source, .. } if by_the_database(source))
}

fn not_now(error: StoreError) -> ConsumeError {
    ConsumeError::NotNow(error.to_string())
}

/// Dead letters, kept in the store.
pub struct KeptDeadLetters {
    /// Where.
    pub store: SharedStore,
    /// The time that decides.
    pub clock: Clock,
}

#[async_trait]
impl DeadLetters for KeptDeadLetters {
    async fn bury(&self, message: &Message, reason: &str) -> bool {
        tracing::warn!(queue = message.queue, message = message.id, reason, "a message is put away");
        let letter = DeadLetter {
            queue: message.queue.clone(),
            message_id: message.id.clone(),
            payload: message.payload.clone(),
            reason: reason.to_owned(),
            at: self.clock.now(),
        };
        self.store.bury(&letter).await.is_ok()
    }
}
