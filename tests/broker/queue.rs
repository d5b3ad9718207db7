//! A virtual host as RabbitMQ's management API shows it: queues of a test's own, and what is in any queue.

use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::time::Duration;
use storekeeper::messaging::amqp::topology::{EXCHANGE, QUEUES, dead};

use crate::rabbitmq::VirtualHost;
use crate::shop::until;

/// How long an answer may take.
const API_TIME_MAX: Duration = Duration::from_secs(30);
/// Messages taken at a time.
const TAKEN_MAX: usize = 500;

/// Asks the management API about one virtual host.
pub(crate) struct Queues {
    client: Client,
    api: String,
    host: String,
}

/// A message that was in a queue.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) id: String,
    pub(crate) routing_key: String,
    pub(crate) payload: String,
    pub(crate) headers: Value,
}

impl Received {
    fn of(message: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let properties = &message["properties"];
        Self {
            id: text(&properties["message_id"]),
            routing_key: text(&message["routing_key"]),
            payload: text(&message["payload"]),
            headers: properties["headers"].clone(),
        }
    }

    /// What it says.
    pub(crate) fn document(&self) -> Value {
        serde_json::from_str(&self.payload).expect("JSON")
    }

    /// A header that is a text.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].as_str().unwrap_or_default()
    }
}

impl Queues {
    /// Those of a virtual host.
    pub(crate) fn of(host: &VirtualHost) -> Self {
        let client = Client::builder().no_proxy().timeout(API_TIME_MAX).build().expect("a client");
        Self { client, api: host.api.clone(), host: host.name.clone() }
    }

    async fn ask(&self, method: Method, path: String, body: &Value) -> Value {
        let url = format!("{}/api/{path}", self.api);
        let answer = self.client.request(method, url).json(body).send().await.expect("an answer");
        let (status, text) = (answer.status(), answer.text().await.expect("a body"));
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// A durable queue that gets what is published under these keys from now on. The exchange has to be there.
    pub(crate) async fn bind(&self, queue: &str, keys: &[&str]) {
        let host = &self.host;
        self.ask(Method::PUT, format!("queues/{host}/{queue}"), &json!({"durable": true})).await;
        for key in keys {
            let path = format!("bindings/{host}/e/{EXCHANGE}/q/{queue}");
            self.ask(Method::POST, path, &json!({"routing_key": key})).await;
        }
    }

    /// Takes all that is in a queue, the oldest first.
    pub(crate) async fn take(&self, queue: &str) -> Vec<Received> {
        let body = json!({"count": TAKEN_MAX, "ackmode": "ack_requeue_false", "encoding": "auto"});
        let mut taken = Vec::new();
        loop {
            let some = self.ask(Method::POST, format!("queues/{}/{queue}/get", self.host), &body).await;
            let some = some.as_array().expect("a list").clone();
            if some.is_empty() {
                return taken;
            }
            taken.extend(some.iter().map(Received::of));
        }
    }

    /// Takes messages out of a queue until there are so many.
    pub(crate) async fn take_until(&self, queue: &str, count: usize) -> Vec<Received> {
        let mut taken = Vec::new();
        until(&format!("{count} messages in {queue}"), async || {
            taken.extend(self.take(queue).await);
            taken.len() >= count
        })
        .await;
        taken
    }

    /// Publishes as a stranger would; it has to reach a queue.
    pub(crate) async fn publish(&self, key: &str, properties: Value, payload: &[u8]) {
        let (payload, encoding) = match std::str::from_utf8(payload) {
            Ok(text) => (text.to_owned(), "string"),
            Err(_) => (base64::Engine::encode(&base64::engine::general_purpose::STANDARD, payload), "base64"),
        };
        let body = json!({
            "routing_key": key, "properties": properties, "payload": payload, "payload_encoding": encoding,
        });
        let answer = self.ask(Method::POST, format!("exchanges/{}/{EXCHANGE}/publish", self.host), &body).await;
        assert_eq!(answer["routed"], true, "nobody gets it");
    }

    /// A change of stock, as a warehouse system asks for it.
    pub(crate) async fn ask_for_stock(&self, id: &str, document: &Value) {
        let properties = json!({"message_id": id, "delivery_mode": 2, "content_type": "application/json"});
        self.publish("update-inventory", properties, document.to_string().as_bytes()).await;
    }

    /// What the broker says of a queue; its figures lag behind by some seconds.
    pub(crate) async fn figures(&self, queue: &str) -> Value {
        self.ask(Method::GET, format!("queues/{}/{queue}", self.host), &Value::Null).await
    }

    /// Nothing of this program's queues was put away.
    pub(crate) async fn assert_no_dead_letters(&self) {
        for queue in QUEUES {
            let letters = self.take(&dead(queue)).await;
            assert!(letters.is_empty(), "{queue}: {letters:?}");
        }
    }
}
