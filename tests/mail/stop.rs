//! A server that is told to stop while a mail is on its way.

use std::time::Duration;

use serde_json::Value;
use storekeeper::actors::house::Unfinished;
use storekeeper::app::{AppError, Undone};
use tokio::net::TcpStream;

use crate::post::{PATIENCE, mail, open, send};
use crate::support::smtp::{Mood, Sink};
use crate::support::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_its_way_arrives_and_is_known_to() {
    let sink = Sink::start().await;
    sink.set(Mood::SilentAfterTheDot);
    let shop = open(&sink, |_| {}).await;
    let address = shop.app.address();
    let id = send(&shop.api, "ann@example.org").await;
    until("the mail arrives", PATIENCE, async || (!sink.arrived().is_empty()).then_some(())).await;
    let meanwhile = async {
        // HTTP has ended: the server is stopping, and waits for the answer.
        until("it stops", PATIENCE, async || TcpStream::connect(address).await.is_err().then_some(())).await;
        sink.set(Mood::Take);
        sink.speak();
    };
    let (shop, ()) = tokio::join!(Box::pin(shop.restart()), meanwhile);
    let kept = mail(&shop.api, &id).await;
    assert_eq!((&kept["status"], &kept["attempts"], &kept["lastError"]), (&"SENT".into(), &1.into(), &Value::Null));
    assert_eq!(sink.arrived().len(), 1);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_that_nobody_answers_for_does_not_keep_the_server() {
    let sink = Sink::start().await;
    sink.set(Mood::SilentAfterTheDot);
    let shop = open(&sink, |config| config.shutdown.limit = Duration::from_secs(1)).await;
    send(&shop.api, "ann@example.org").await;
    until("the mail arrives", PATIENCE, async || (!sink.arrived().is_empty()).then_some(())).await;
    let undone = match shop.app.stop().await {
        Err(AppError::NotDrained(undone)) => undone,
        other => panic!("it did not say what is not done: {other:?}"),
    };
    assert_eq!(undone, Undone { connections: 0, work: Unfinished { messages: 0, mails: 1 } });
}
