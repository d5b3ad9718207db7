//! The event bus of a test's shop: the one place that says which kind it is.
//!
//! The one inside the program; RabbitMQ where the tests' shops have every real service.

use reqwest::Client;
use serde_json::{Value, json};
use storekeeper::messaging::amqp::AmqpOptions;
use storekeeper::messaging::amqp::topology::dead;
use storekeeper::persistence::SharedStore;
use tokio::task::spawn_blocking;

use super::database::Backend;
use super::rabbitmq::VirtualHost;

/// Dead letters that are looked at.
const LETTERS_MAX: usize = 1_000;

/// A bus of a test's own, which goes with it.
pub(crate) enum Bus {
    /// Inside the program.
    Local,
    /// On a server.
    RabbitMq(VirtualHost),
}

impl Bus {
    /// One with nothing in it.
    pub(crate) async fn new() -> Self {
        match Backend::of_the_tests() {
            Backend::Sqlite | Backend::Postgres => Self::Local,
            Backend::Real => Self::RabbitMq(spawn_blocking(VirtualHost::new).await.expect("a virtual host")),
        }
    }

    /// The broker's address, when there is one.
    pub(crate) fn url(&self) -> Option<String> {
        match self {
            Self::Local => None,
            Self::RabbitMq(host) => Some(host.url.clone()),
        }
    }

    /// The broker, when there is one.
    pub(crate) fn options(&self) -> Option<AmqpOptions> {
        self.url().map(|url| AmqpOptions::of(&url).expect("an address"))
    }

    /// What was put away from a queue: message and reason, as often as it was put away.
    pub(crate) async fn dead_letters(&self, store: &SharedStore, queue: &str) -> Vec<(String, String)> {
        match self {
            Self::Local => {
                let letters = store.dead_letters(queue).await.expect("the store answers");
                letters.into_iter().map(|letter| (letter.message_id, letter.reason)).collect()
            }
            Self::RabbitMq(host) => {
                let client = Client::builder().no_proxy().build().expect("a client");
                let url = format!("{}/api/queues/{}/{}/get", host.api, host.name, dead(queue));
                let look = json!({"count": LETTERS_MAX, "ackmode": "ack_requeue_true", "encoding": "auto"});
                let answer = client.post(url).json(&look).send().await.expect("the broker answers");
                let letters: Vec<Value> = answer.json().await.expect("a list");
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let letter = |letter: &Value| {
                    let properties = &letter["properties"];
                    (text(&properties["message_id"]), text(&properties["headers"]["x-reason"]))
                };
                letters.iter().map(letter).collect()
            }
        }
    }
}
