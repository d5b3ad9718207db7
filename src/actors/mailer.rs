//! Mails: made here from the texts, and handed on by the mailer.
//!
//! With a mail server a mail is queued, and the mailer has it sent ([`super::delivery`]). Without one it is kept as
//! captured from the start, and `GET /emails` shows it; the mailer then only has to do with mails that were queued when
//! there was one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use uuid::Uuid;

use crate::domain::ids::EmailId;
use crate::domain::timestamp::Timestamp;
use crate::messaging::documents::OrderDocument;
use crate::messaging::mail::{MailText, TemplateError, Templates};
use crate::persistence::clock::Clock;
use crate::persistence::records::{EmailStatus, NewEmail, Order};
use crate::persistence::{SharedStore, StoreError};

use super::command::CommandError;
use super::delivery::Delivery;
use super::periodic::{Job, PeriodicHandle};
use super::supervision::ActorKind;

/// Mails claimed at a time.
const CLAIM_MAX: u32 = 100;
/// How long a claim lasts; a mailer that died is followed after it.
const LEASE: Duration = Duration::from_secs(60);
/// How often the queue is looked at when nobody says that there is something: mails that are tried again are due at a
/// moment that nobody tells.
const PERIOD: Duration = Duration::from_millis(500);

/// Makes mails: texts, sender, and whether they are sent or kept.
pub struct MailRoom {
    templates: Templates,
    sender: String,
    status: EmailStatus,
}

impl MailRoom {
    /// A room whose mails come from `sender` and are `captured`, kept, when there is no mail server.
    #[must_use]
    pub fn new(templates: Templates, sender: String, captured: bool) -> Self {
        let status = if captured { EmailStatus::Captured } else { EmailStatus::Queued };
        Self { templates, sender, status }
    }

    /// The texts.
    #[must_use]
    pub fn templates(&self) -> &Templates {
        &self.templates
    }

    /// Who mails come from.
    #[must_use]
    pub fn sender(&self) -> &str {
        &self.sender
    }

    /// Where a new mail stands: to be sent, or kept.
    #[must_use]
    pub fn status(&self) -> EmailStatus {
        self.status
    }

    /// A mail of the shop's own; `source` is the part of the shop that it comes from.
    #[must_use]
    pub fn mail(&self, recipient: &str, text: MailText, source: &str, now: Timestamp) -> NewEmail {
        NewEmail {
            id: EmailId(Uuid::now_v7()),
            sender: self.sender.clone(),
            recipient: recipient.to_owned(),
            subject: text.subject,
            body: text.text,
            html: Some(text.html),
            source: source.to_owned(),
            status: self.status,
            created_at: now,
        }
    }

    /// The mail that confirms an order.
    ///
    /// # Errors
    /// [`TemplateError`], which no order that is well-formed causes.
    pub fn order_confirmation(&self, order: &OrderDocument, now: Timestamp) -> Result<NewEmail, TemplateError> {
        let text = self.templates.order_confirmation(order)?;
        Ok(self.mail(&order.user_email, text, "orders", now))
    }

    /// The mail that tells of an order's new status.
    pub(super) fn order_status(&self, order: &Order, now: Timestamp) -> Result<NewEmail, CommandError> {
        let text = self.templates.order_status(&OrderDocument::of(order)).map_err(|error| {
            tracing::error!(%error, order = %order.id, "a mail can not be written");
            CommandError::Unwritable
        })?;
        Ok(self.mail(&order.user_email, text, "orders", now))
    }
}

/// Has queued mails sent.
pub struct Mailer {
    /// Where the mails are.
    pub store: SharedStore,
    /// The time that decides.
    pub clock: Clock,
    /// Sends them; `None` without a mail server.
    pub delivery: Option<Arc<Delivery>>,
}

/// The way to the mailer.
pub type MailerHandle = PeriodicHandle<Mailer>;

impl MailerHandle {
    /// Begins nothing more, and sends the mailer home.
    pub(super) fn stop_sending(&self) {
        if let Some(delivery) = &self.job().delivery {
            delivery.stop();
        }
        self.stop();
    }

    /// Waits until the mails on their way have arrived, until `deadline` at most. Gives how many have not.
    pub(super) async fn finish(&self, deadline: Instant) -> usize {
        match &self.job().delivery {
            Some(delivery) => delivery.finish(deadline).await,
            None => 0,
        }
    }

    /// Whether the mail server answers; `None` when there is none.
    #[must_use]
    pub fn server_is_up(&self) -> Option<bool> {
        self.job().delivery.as_ref().map(|delivery| delivery.is_up())
    }
}

#[async_trait]
impl Job for Mailer {
    const KIND: ActorKind = ActorKind::Mailer;
    const PERIOD: Duration = PERIOD;

    async fn run(&self) {
        match &self.delivery {
            Some(delivery) => delivery.run().await,
            None => capture_queued(self).await,
        }
    }

    /// A delivery that runs looks again by itself.
    fn called_at_work(&self) -> bool {
        if let Some(delivery) = &self.delivery {
            delivery.look();
        }
        self.delivery.is_none()
    }
}

/// Mails that were queued for a mail server which is no longer configured are kept as captured.
async fn capture_queued(parts: &Mailer) {
    let captured: Result<(), StoreError> = async {
        loop {
            let now = parts.clock.now();
            let mails = parts.store.claim_emails(now, now.plus(LEASE), CLAIM_MAX).await?;
            if mails.is_empty() {
                return Ok(());
            }
            for email in mails {
                parts.store.email_done(email.mail.id, true, parts.clock.now()).await?;
            }
        }
    }
    .await;
    if let Err(error) = captured {
        tracing::warn!(error = &error as &dyn std::error::Error, "mails wait for the database");
    }
}
