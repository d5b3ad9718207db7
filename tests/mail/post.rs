//! A shop whose mails go to a mail server, and what the shop says of them.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use storekeeper::actors::delivery::RetryRules;
use storekeeper::config::Config;
use storekeeper::domain::ids::EmailId;
use storekeeper::domain::timestamp::Timestamp;
use storekeeper::persistence::records::{EmailStatus, NewEmail};
use uuid::Uuid;

use crate::support::smtp::Sink;
use crate::support::{Api, TestShop, until};

/// How long the test waits for anything before it gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Mails go to the server, and what fails is tried again at once.
pub(crate) fn impatient(sink: &Sink, config: &mut Config) {
    let mut smtp = sink.options();
    smtp.probe_period = Duration::from_millis(20);
    config.mail.smtp = Some(smtp);
    config.mail.retries = RetryRules {
        tries: 1_000,
        delay_min: Duration::from_millis(10),
        delay_max: Duration::from_millis(50),
        ..RetryRules::default()
    };
}

/// A shop that sends to the server.
pub(crate) async fn open(sink: &Sink, set: impl FnOnce(&mut Config)) -> TestShop {
    let open = TestShop::open(|config| {
        impatient(sink, config);
        set(config);
    });
    Box::pin(open).await
}

/// Has the administrator send a mail; gives its id.
pub(crate) async fn send(api: &Api, recipient: &str) -> String {
    let mail = json!({"recipient": recipient, "subject": "Hello", "body": "Two\nlines", "source": "support"});
    let sent = api.ask_as_admin(Method::POST, "/emails/send").json(&mail).send().await.expect_status(202);
    assert_eq!(sent.body["status"], "QUEUED", "it is to be sent");
    sent.text("id")
}

/// A mail that is due at `due_at`, as the store keeps it.
pub(crate) fn queued(id: Uuid, recipient: &str, due_at: Timestamp) -> NewEmail {
    NewEmail {
        id: EmailId(id),
        sender: "shop@localhost".to_owned(),
        recipient: recipient.to_owned(),
        subject: "Hello".to_owned(),
        body: "Hello".to_owned(),
        html: None,
        source: "support".to_owned(),
        status: EmailStatus::Queued,
        created_at: due_at,
    }
}

/// All mails that the shop knows, newest first.
pub(crate) async fn mails(api: &Api) -> Vec<Value> {
    let (mut mails, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.ask_as_admin(Method::GET, &format!("/emails?limit=100{cursor}")).send().await;
        let page = page.expect_status(200).body;
        mails.extend(page["data"].as_array().expect("a list").iter().cloned());
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return mails,
        }
    }
}

/// A mail as the shop shows it.
pub(crate) async fn mail(api: &Api, id: &str) -> Value {
    mails(api).await.into_iter().find(|mail| mail["id"] == id).expect("the mail is kept")
}

/// Waits until a mail stands so; gives it.
pub(crate) async fn until_it_is(api: &Api, id: &str, status: &str) -> Value {
    let stands = async || Some(mail(api, id).await).filter(|mail| mail["status"] == status);
    until(&format!("the mail is {status}"), PATIENCE, stands).await
}

/// Waits until readiness says so of the mail server.
pub(crate) async fn until_the_server_is(api: &Api, state: &str) {
    let told = async || {
        let ready = api.ask(Method::GET, "/health/ready").send().await.expect_status(200);
        (ready.body["dependencies"]["smtp"] == state).then_some(())
    };
    until(&format!("the mail server is {state}"), PATIENCE, told).await;
}
