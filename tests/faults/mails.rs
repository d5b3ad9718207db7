//! The mailer dies with a mail in its hands, before and after the server took it.

use std::time::Duration;

use serde_json::json;
use storekeeper::actors::delivery::RetryRules;
use storekeeper::actors::faults::Moment;
use storekeeper::actors::supervision::{ActorKind, Policy};
use storekeeper::persistence::clock::Clock;

use crate::scene::{PATIENCE, arm_panic, count, kinds};
use crate::support::smtp::Sink;
use crate::support::{TestShop, until};

/// How long a mail is claimed for at the most.
const LEASE: Duration = Duration::from_secs(3_600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_arrives_whenever_the_mailer_dies_and_at_most_twice() {
    for (moment, arrivals) in [(Moment::Before, 1), (Moment::During, 1), (Moment::After, 2)] {
        let sink = Sink::start().await;
        let clock = Clock::manual(storekeeper::domain::timestamp::Timestamp(1_795_339_800_000_000));
        let policy = Policy { backoff_max: Duration::ZERO, ..Policy::default() };
        let shop = Box::pin(TestShop::open_at(clock, |config| {
            config.actors.supervision = policy;
            config.mail.smtp = Some(sink.options());
            config.mail.retries = RetryRules::default();
        }))
        .await;
        arm_panic(&shop, ActorKind::Mailer, moment, None);
        let mail = json!({"recipient": "ann@example.org", "subject": "Hello", "body": "Hello", "source": "support"});
        shop.api.ask_as_admin(reqwest::Method::POST, "/emails/send").json(&mail).send().await.expect_status(202);
        let died = async || (count(&kinds(&shop).await["mailer"], "panics") == 1).then_some(());
        until("the mailer dies", PATIENCE, died).await;
        // What the dead one had claimed is free when the claim is over.
        shop.clock().advance(LEASE);
        let sent = async || {
            let mails = shop.api.ask_as_admin(reqwest::Method::GET, "/emails").send().await.expect_status(200).body;
            (mails["data"][0]["status"] == "SENT").then_some(())
        };
        until("the mail is sent", PATIENCE, sent).await;
        assert_eq!(sink.arrived().len(), arrivals, "{moment:?}");
        shop.stop().await;
    }
}
