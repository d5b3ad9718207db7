//! A server that has all of a mail and does not say whether it takes it.

use std::time::Duration;

use storekeeper::config::Config;
use uuid::Uuid;

use crate::post::{PATIENCE, open, queued, send, until_it_is};
use crate::support::smtp::{Arrived, Mood, Sink};
use crate::support::{TestShop, until};

/// How long the shop waits for an answer, where a test waits for that to be over.
const SHORT: Duration = Duration::from_secs(2);

fn answers_fast(config: &mut Config) {
    if let Some(smtp) = &mut config.mail.smtp {
        smtp.answer_limit = SHORT;
    }
}

#[track_caller]
fn assert_twice_the_same(arrived: &[Arrived]) {
    assert_eq!(arrived.len(), 2, "it is sent once more, and not again");
    assert!(!arrived[0].header("Message-ID").is_empty());
    assert_eq!(arrived[0].text, arrived[1].text, "whoever gets both can tell");
}

/// Silent the first time: the mail is sent once more.
async fn once_more(mood: Mood) {
    let sink = Sink::start().await;
    sink.set(mood);
    let shop = open(&sink, answers_fast).await;
    let id = send(&shop.api, "ann@example.org").await;
    until("the mail arrives", PATIENCE, async || (!sink.arrived().is_empty()).then_some(())).await;
    sink.set(Mood::Take);
    until_it_is(&shop.api, &id, "SENT").await;
    assert_twice_the_same(&sink.arrived());
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_after_the_final_dot_gets_it_once_more() {
    once_more(Mood::SilentAfterTheDot).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_after_the_final_dot_gets_it_once_more() {
    once_more(Mood::CutAfterTheDot).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_never_says_gets_it_twice_and_not_again() {
    let sink = Sink::start().await;
    sink.set(Mood::CutAfterTheDot);
    let shop = open(&sink, answers_fast).await;
    let id = send(&shop.api, "ann@example.org").await;
    let failed = until_it_is(&shop.api, &id, "FAILED").await;
    assert_twice_the_same(&sink.arrived());
    assert!(failed["lastError"].as_str().is_some_and(|error| error.contains("did not say")), "{failed:#}");
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_refused_meanwhile_does_not_count_as_silence() {
    let sink = Sink::start().await;
    sink.set(Mood::CutAfterTheDot);
    let shop = open(&sink, answers_fast).await;
    let id = send(&shop.api, "ann@example.org").await;
    until("the mail arrives", PATIENCE, async || (!sink.arrived().is_empty()).then_some(())).await;
    sink.set(Mood::AfterTheDot("451 later"));
    until("it is refused for now", PATIENCE, async || (sink.arrived().len() >= 4).then_some(())).await;
    sink.set(Mood::Take);
    until_it_is(&shop.api, &id, "SENT").await;
    assert_eq!(sink.arrived().iter().filter(|mail| mail.taken).count(), 1);
    shop.stop().await;
}

/// A mail whose sender died each of the times that it was handed over.
async fn orphan(shop: &TestShop, handed_over: i64) -> String {
    let (store, now) = (shop.app.store(), shop.clock().now());
    // It is not due for the shop before all of that has happened.
    let later = now.plus(Duration::from_secs(3_600));
    let mail = queued(Uuid::now_v7(), "ann@example.org", later);
    store.insert_email(&mail).await.expect("a mail");
    for attempt in 1..=handed_over {
        assert_eq!(store.claim_emails(later, later, 1).await.expect("a claim").len(), 1);
        let lease_until = if attempt == handed_over { now } else { later };
        assert!(store.email_handed_over(mail.id, attempt, lease_until).await.expect("a mark"));
    }
    mail.id.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_whose_sender_died_before_the_answer_is_sent_once_more() {
    let sink = Sink::start().await;
    let shop = open(&sink, |_| {}).await;
    let id = orphan(&shop, 1).await;
    until_it_is(&shop.api, &id, "SENT").await;
    assert_eq!(sink.arrived().len(), 1);
    let id = orphan(&shop, 2).await;
    let failed = until_it_is(&shop.api, &id, "FAILED").await;
    assert!(failed["lastError"].as_str().is_some_and(|error| error.contains("twice")), "{failed:#}");
    assert_eq!(sink.arrived().len(), 1, "it has been sent twice before");
    shop.stop().await;
}
