//! The mail server goes away under load, and comes back; and the database does at the worst moment.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use storekeeper::persistence::clock::Clock;

use crate::post::{PATIENCE, impatient, mail, mails, open, send, until_it_is, until_the_server_is};
use crate::support::postgres::{self, Durability, Server};
use crate::support::smtp::{Mood, Sink};
use crate::support::{Database, TestShop, until};

/// Buyers at work at the same time.
const BUYERS: usize = 6;
/// Orders of one phase that are enough to go on.
const ENOUGH: usize = 15;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_is_confirmed_once_whenever_the_server_was_away() {
    let mut sink = Sink::start().await;
    let shop = open(&sink, |_| {}).await;
    let item = shop.api.item("3.00", 1_000_000).await;
    let (over, ordered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let buying: Vec<_> = shop
        .buyers(BUYERS)
        .await
        .into_iter()
        .map(|buyer| {
            let (api, item, over, ordered) = (shop.api.clone(), item.clone(), Arc::clone(&over), Arc::clone(&ordered));
            tokio::spawn(async move {
                let mut orders = Vec::new();
                while !over.load(Ordering::Acquire) {
                    let cart = api.cart_with(&item, 1).await;
                    orders.push(api.checkout(&buyer, &cart).send().await.expect_status(201).text("id"));
                    ordered.fetch_add(1, Ordering::AcqRel);
                }
                orders
            })
        })
        .collect();
    let more_orders = async || {
        let goal = ordered.load(Ordering::Acquire) + ENOUGH;
        until("orders are placed", PATIENCE, async || (ordered.load(Ordering::Acquire) >= goal).then_some(())).await;
    };
    for _ in 0..3 {
        let arrived = sink.arrived().len();
        until("mails arrive", PATIENCE, async || (sink.arrived().len() > arrived).then_some(())).await;
        sink.stop().await;
        more_orders().await;
        until_the_server_is(&shop.api, "degraded").await;
        sink.start_again();
        more_orders().await;
    }
    over.store(true, Ordering::Release);
    let mut orders = Vec::new();
    for buyer in buying {
        orders.extend(buyer.await.expect("no panic"));
    }
    let sent = async || {
        let mails = mails(&shop.api).await;
        (mails.len() == orders.len() && mails.iter().all(|mail| mail["status"] == "SENT")).then_some(())
    };
    until("all mails are sent", PATIENCE, sent).await;
    let mut confirmed: HashMap<String, usize> = HashMap::new();
    for mail in sink.arrived() {
        *confirmed.entry(mail.header("Subject")).or_default() += 1;
    }
    for order in &orders {
        assert_eq!(confirmed.get(&format!("Your order {order}")), Some(&1), "order {order}");
    }
    assert_eq!(confirmed.len(), orders.len());
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_when_the_server_answers_does_not_cost_a_second_mail() {
    let mut server = Server::new(Durability::Real);
    let database = Database::Postgres(postgres::Database::of(&server));
    let sink = Sink::start().await;
    let shop = Box::pin(TestShop::open_on(database, Clock::system(), |config| impatient(&sink, config))).await;
    sink.set(Mood::SilentAfterTheDot);
    let id = send(&shop.api, "ann@example.org").await;
    until("the mail arrives", PATIENCE, async || (!sink.arrived().is_empty()).then_some(())).await;
    server.stop();
    sink.set(Mood::Take);
    sink.speak();
    server.start();
    until("the database is back", PATIENCE, async || shop.app.store().ping().await.ok()).await;
    let sent = until_it_is(&shop.api, &id, "SENT").await;
    assert_eq!((sink.arrived().len(), &sent["attempts"]), (1, &1.into()));
    assert_eq!(mail(&shop.api, &id).await["lastError"], serde_json::Value::Null);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_mails_are_on_their_way_than_may_be() {
    const SENDS_MAX: usize = 3;
    let sink = Sink::start().await;
    let shop = open(&sink, |config| {
        if let Some(smtp) = &mut config.mail.smtp {
            smtp.sends_max = SENDS_MAX;
        }
    });
    let shop = shop.await;
    until_the_server_is(&shop.api, "up").await;
    sink.set(Mood::SilentAfterTheDot);
    let mut ids = Vec::new();
    for number in 0..SENDS_MAX * 4 {
        ids.push(send(&shop.api, &format!("buyer-{number}@example.org")).await);
    }
    until("the places are taken", PATIENCE, async || (sink.arrived().len() >= SENDS_MAX).then_some(())).await;
    let claimed = mails(&shop.api).await.iter().filter(|mail| mail["attempts"] != 0).count();
    assert_eq!((claimed, sink.arrived().len()), (SENDS_MAX, SENDS_MAX), "the others are left to other servers");
    sink.set(Mood::Take);
    sink.speak();
    for id in &ids {
        until_it_is(&shop.api, id, "SENT").await;
    }
    assert_eq!(sink.arrived().len(), ids.len());
    assert!(sink.connections() <= SENDS_MAX, "{} connections: they are used again", sink.connections());
    shop.stop().await;
}
