//! `/emails`: mail by hand, and what became of every mail.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, web};
use serde::Serialize;
use uuid::Uuid;

use crate::domain::ids::EmailId;
use crate::domain::timestamp::Timestamp;
use crate::persistence::records::{Email, EmailFilter, EmailStatus, NewEmail};

use super::body::Body;
use super::caller::Caller;
use super::fields::Fields;
use super::lists::{self, List};
use super::rules::{self, OneOf, Text};
use super::state::State;
use super::{Answer, json};

const SUBJECT: Text = Text::line(1, 255);
const BODY: Text = Text::lines(1, 100_000);
const SOURCE: Text = Text::line(1, 64);

#[derive(Serialize)]
struct SentDocument {
    id: EmailId,
    status: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EmailDocument<'a> {
    id: EmailId,
    sender: &'a str,
    recipient: &'a str,
    subject: &'a str,
    body: &'a str,
    source: &'a str,
    status: &'static str,
    attempts: i64,
    last_error: Option<&'a str>,
    created_at: Timestamp,
    sent_at: Option<Timestamp>,
}

impl<'a> EmailDocument<'a> {
    fn of(email: &'a Email) -> Self {
        let mail = &email.mail;
        Self {
            id: mail.id,
            sender: &mail.sender,
            recipient: &mail.recipient,
            subject: &mail.subject,
            body: &mail.body,
            source: &mail.source,
            status: mail.status.name(),
            attempts: email.attempts,
            last_error: email.last_error.as_deref(),
            created_at: mail.created_at,
            sent_at: email.sent_at,
        }
    }
}

/// `POST /emails/send`: keeps a mail, to be sent where there is a mail server.
pub(crate) async fn send(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    Caller::admin(&state, &request).await?;
    let body = Body::read(&request, payload).await?;
    let mut fields = body.fields()?;
    let read = (
        fields.required("recipient", rules::Email),
        fields.required("subject", SUBJECT),
        fields.required("body", BODY),
        fields.required("source", SOURCE),
        fields.optional("sender", rules::Sender),
    );
    let (recipient, subject, body, source, sender) = fields.finish(read)?;
    let mail = NewEmail {
        id: EmailId(Uuid::now_v7()),
        sender: sender.unwrap_or_else(|| state.settings.mail_sender.clone()),
        recipient: recipient.to_string(),
        subject,
        body,
        html: None,
        source,
        status: state.new_mail_status(),
        created_at: state.clock.now(),
    };
    let document = SentDocument { id: mail.id, status: mail.status.name() };
    state.write(|store| async move { store.insert_email(&mail).await }).await?;
    state.shop.mail_queued();
    Ok(json::json(StatusCode::ACCEPTED, &document))
}

/// `GET /emails`, newest first.
pub(crate) async fn list(state: State, request: HttpRequest) -> Answer {
    Caller::admin(&state, &request).await?;
    let mut fields = Fields::of_query(request.query_string());
    let read = (
        lists::page(&mut fields),
        fields.optional("recipient", rules::Email),
        fields.optional("source", SOURCE),
        fields.optional("status", OneOf(&EmailStatus::NAMES)),
    );
    let (page, recipient, source, status) = fields.finish(read)?;
    let filter = EmailFilter { recipient: recipient.map(|address| address.to_string()), source, status };
    let listed = state.read(|store| async move { store.list_emails(&filter, &page).await }).await?;
    Ok(json::ok(&List::of(&listed, EmailDocument::of)))
}
