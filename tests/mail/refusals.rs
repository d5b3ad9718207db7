//! A server that does not want a mail, now or ever, or that nobody can reach.

use std::time::Duration;

use serde_json::Value;

use crate::post::{PATIENCE, mail, open, send, until_it_is, until_the_server_is};
use crate::support::smtp::{Mood, Sink};
use crate::support::{TestShop, until};

#[track_caller]
fn last_error(mail: &Value) -> &str {
    mail["lastError"].as_str().unwrap_or_else(|| panic!("no error: {mail:#}"))
}

/// Waits until a mail was tried so often in vain; gives it.
async fn until_tried(shop: &TestShop, id: &str, times: i64) -> Value {
    let tried = async || {
        let mail = mail(&shop.api, id).await;
        let failed = mail["lastError"].is_string() && mail["attempts"].as_i64() >= Some(times);
        failed.then_some(mail)
    };
    until(&format!("the mail is tried {times} times"), PATIENCE, tried).await
}

/// The server behaves so at first: the mail waits, is tried again, and arrives once when the server takes mails.
async fn waits_out(mood: Mood, error: &str) {
    let sink = Sink::start().await;
    sink.set(mood);
    let shop = open(&sink, |_| {}).await;
    let id = send(&shop.api, "ann@example.org").await;
    // More often than a mail may go unanswered: this one is answered, or was not sent.
    let waiting = until_tried(&shop, &id, 3).await;
    assert_eq!(waiting["status"], "QUEUED");
    assert!(last_error(&waiting).contains(error), "{error} in {waiting:#}");
    sink.set(Mood::Take);
    let sent = until_it_is(&shop.api, &id, "SENT").await;
    assert!(sent["sentAt"].is_string() && sent["attempts"].as_i64() >= Some(3), "{sent:#}");
    let taken: Vec<_> = sink.arrived().into_iter().filter(|mail| mail.taken).collect();
    assert_eq!(taken.len(), 1, "it is sent until it is taken, and not again");
    until_the_server_is(&shop.api, "up").await;
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_busy_is_asked_again() {
    waits_out(Mood::AtRecipient("451 4.7.1 greylisted"), "451").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_no_room_for_the_text_is_asked_again() {
    waits_out(Mood::AfterTheDot("452 4.3.1 disk full"), "452").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_before_the_text_is_made_anew() {
    waits_out(Mood::CutAtRecipient, "RCPT").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_when_the_text_is_announced_is_made_anew() {
    waits_out(Mood::CutAtData, "DATA").await;
}

/// The server refuses for good: it is not asked again.
async fn gives_up(mood: Mood, error: &str) {
    let sink = Sink::start().await;
    sink.set(mood);
    let shop = open(&sink, |_| {}).await;
    let id = send(&shop.api, "nobody@example.org").await;
    let failed = until_it_is(&shop.api, &id, "FAILED").await;
    assert_eq!((&failed["attempts"], &failed["sentAt"]), (&1.into(), &Value::Null));
    assert!(last_error(&failed).contains(error), "{error} in {failed:#}");
    // The others are none the worse for it.
    sink.set(Mood::Take);
    let other = send(&shop.api, "ann@example.org").await;
    until_it_is(&shop.api, &other, "SENT").await;
    assert_eq!(mail(&shop.api, &id).await, failed);
    assert_eq!(sink.arrived().iter().filter(|mail| mail.taken).count(), 1);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_recipient_is_given_up_at_once() {
    gives_up(Mood::AtRecipient("550 5.1.1 no such user"), "550").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_text_is_given_up_at_once() {
    gives_up(Mood::AfterTheDot("554 5.7.1 looks like spam"), "554").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_waited_for() {
    let mut sink = Sink::start().await;
    let shop = open(&sink, |_| {}).await;
    until_the_server_is(&shop.api, "up").await;
    sink.stop().await;
    let id = send(&shop.api, "ann@example.org").await;
    let waiting = until_tried(&shop, &id, 2).await;
    assert!(last_error(&waiting).contains("refused"), "{waiting:#}");
    until_the_server_is(&shop.api, "degraded").await;
    sink.start_again();
    until_it_is(&shop.api, &id, "SENT").await;
    assert_eq!(sink.arrived().len(), 1);
    until_the_server_is(&shop.api, "up").await;
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stays_away_is_given_up() {
    let mut sink = Sink::start().await;
    sink.stop().await;
    let shop = open(&sink, |config| config.mail.retries.tries = 3).await;
    let id = send(&shop.api, "ann@example.org").await;
    let failed = until_it_is(&shop.api, &id, "FAILED").await;
    assert_eq!(failed["attempts"], 3);
    assert!(last_error(&failed).contains("refused"), "{failed:#}");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_only_accepts_connections_is_waited_for() {
    let sink = Sink::start().await;
    sink.set(Mood::SilentFromTheStart);
    let short = Duration::from_secs(1);
    let shop = open(&sink, |config| {
        if let Some(smtp) = &mut config.mail.smtp {
            smtp.offer_limit = short;
        }
    });
    let shop = shop.await;
    let id = send(&shop.api, "ann@example.org").await;
    // More often than a mail may go unanswered: nothing of this one was sent.
    let waiting = until_tried(&shop, &id, 3).await;
    assert!(last_error(&waiting).contains("does not answer"), "{waiting:#}");
    until_the_server_is(&shop.api, "degraded").await;
    sink.set(Mood::Take);
    until_it_is(&shop.api, &id, "SENT").await;
    assert_eq!(sink.arrived().len(), 1);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_be_encrypted_is_not_sent_in_clear() {
    let sink = Sink::start().await;
    let url = format!("{}?tls=required", sink.url());
    let server = storekeeper::messaging::smtp::SmtpServer::parse(&url).expect("an address");
    let shop = open(&sink, |config| {
        if let Some(smtp) = &mut config.mail.smtp {
            smtp.server = server;
        }
    });
    let shop = shop.await;
    let id = send(&shop.api, "ann@example.org").await;
    let waiting = until_tried(&shop, &id, 2).await;
    assert!(last_error(&waiting).contains("STARTTLS"), "{waiting:#}");
    assert_eq!((sink.arrived().len(), sink.recipients()), (0, 0), "the server was told nothing");
    shop.stop().await;
}
