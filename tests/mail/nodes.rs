//! Two servers on one database, with one mail server.

use std::collections::HashSet;

use storekeeper::app::App;
use storekeeper::messaging::smtp::SmtpServer;
use storekeeper::persistence::clock::Clock;
use uuid::Uuid;

use crate::post::{PATIENCE, impatient, mails, queued, send};
use crate::support::smtp::{Mood, Sink};
use crate::support::{Database, TestShop, postgres, until};

const MAILS: usize = 120;
/// Mails that one server has on their way at a time.
const SENDS_MAX: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mail_is_sent_by_one_of_two_servers() {
    let sink = Sink::start().await;
    let database = Database::Postgres(postgres::Database::new());
    let named = |name: &str, config: &mut _| {
        impatient(&sink, config);
        if let Some(smtp) = &mut config.mail.smtp {
            smtp.server = SmtpServer::parse(&format!("{}/{name}", sink.url())).expect("an address");
            smtp.sends_max = SENDS_MAX;
        }
    };
    let mut beside = database.config();
    named("second", &mut beside);
    let first = Box::pin(TestShop::open_on(database, Clock::system(), |config| named("first", config))).await;
    let second = Box::pin(App::build(beside)).await.expect("a second server");

    // Both have as many on their way as they may: none of those is the other's.
    sink.set(Mood::SilentAfterTheDot);
    for number in 0..MAILS / 2 {
        send(&first.api, &format!("first-{number}@example.org")).await;
        let mail = queued(Uuid::now_v7(), &format!("second-{number}@example.org"), first.clock().now());
        second.store().insert_email(&mail).await.expect("a mail");
        second.shop().mail_queued();
    }
    until("both send", PATIENCE, async || (sink.arrived().len() >= 2 * SENDS_MAX).then_some(())).await;
    sink.set(Mood::Take);
    sink.speak();
    let sent = async || {
        let mails = mails(&first.api).await;
        (mails.len() == MAILS && mails.iter().all(|mail| mail["status"] == "SENT")).then_some(mails)
    };
    let sent = until("all mails are sent", PATIENCE, sent).await;
    assert!(sent.iter().all(|mail| mail["attempts"] == 1), "nobody tried what another one had");
    let arrived = sink.arrived();
    let recipients: HashSet<&str> = arrived.iter().map(|mail| mail.recipient.as_str()).collect();
    assert_eq!((arrived.len(), recipients.len()), (MAILS, MAILS));
    for name in ["first", "second"] {
        assert!(arrived.iter().filter(|mail| mail.greeting == name).count() >= SENDS_MAX, "the {name} one sends too");
    }
    second.stop().await.expect("it stops in order");
    first.stop().await;
}
