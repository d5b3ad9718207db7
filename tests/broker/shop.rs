//! A server whose events go over RabbitMQ, and what is expected of its books and its mails.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde_json::Value;
use storekeeper::actors::command::{Command, OrderTransition};
use storekeeper::actors::shop::{Buyer, CheckoutRequest};
use storekeeper::app::App;
use storekeeper::config::Config;
use storekeeper::domain::ids::{OrderId, UserId};
use storekeeper::domain::order::OrderStatus;
use storekeeper::messaging::amqp::AmqpOptions;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::records::{EmailFilter, Order, Page};
use uuid::Uuid;

use crate::database::Database;
use crate::stock::Stock;

/// How long a test waits for anything before it gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long [`until`] waits between two looks.
const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// A server, and the database that goes with it.
pub(crate) struct Shop {
    pub(crate) app: App,
    database: Arc<Database>,
    client: Client,
}

impl Shop {
    /// A server on a database of its own whose broker is at this address. It need not be there.
    pub(crate) async fn open(database: Database, broker: &str) -> Self {
        Self::on(Arc::new(database), broker).await
    }

    /// Another server on the same database.
    pub(crate) async fn beside(&self, broker: &str) -> Self {
        Self::on(Arc::clone(&self.database), broker).await
    }

    async fn on(database: Arc<Database>, broker: &str) -> Self {
        let mut config: Config = database.config();
        config.http.workers = 1;
        config.admin.password = Some("correct horse".into());
        config.broker = Some(AmqpOptions::of(broker).expect("an address"));
        let app = App::build(config).await.expect("it serves");
        Self { app, database, client: Client::builder().no_proxy().build().expect("a client") }
    }

    /// A server whose broker is there.
    pub(crate) async fn connected(broker: &str) -> Self {
        let shop = Self::open(Database::new(), broker).await;
        shop.until_broker_is("up").await;
        shop
    }

    /// Stops it; everything that it had begun must be done, and the books in order.
    pub(crate) async fn stop(self) {
        let Self { app, database, client } = self;
        drop(client);
        app.stop().await.expect("a clean end");
        database.assert_in_order().await;
    }

    pub(crate) async fn until_broker_is(&self, state: &str) {
        until(&format!("rabbitmq is {state}"), async || self.broker_state().await == state).await;
    }

    /// What `/health/ready` says of RabbitMQ; the server itself is ready, whatever that is.
    async fn broker_state(&self) -> String {
        let url = format!("http://{}/health/ready", self.app.address());
        let answer = self.client.get(url).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        let body: Value = answer.json().await.expect("JSON");
        body["dependencies"]["rabbitmq"].as_str().expect("a state").to_owned()
    }

    /// A product with so much stock.
    pub(crate) async fn stock(&self, quantity: i64) -> Stock {
        Stock::new(self.app.store().as_ref(), quantity, Clock::system().now()).await
    }

    /// What can be sold.
    pub(crate) async fn available(&self, stock: Stock) -> i64 {
        self.app.shop().available(stock.inventory, Instant::now() + PATIENCE).await.expect("a number")
    }

    /// Fills a cart and makes an order of it, for a buyer who buys nothing else.
    pub(crate) async fn buy(&self, stock: Stock, quantity: i64) -> Arc<Order> {
        let shop = self.app.shop();
        let added = shop.add_to_cart(None, stock.product, None, quantity, false, command()).await;
        let session = added.expect("added").session.expect("a session");
        let user = UserId(Uuid::now_v7());
        let buyer = Buyer { user, name: "Ann".to_owned(), email: format!("{user}@example.org") };
        let request = CheckoutRequest { session, buyer, shipping_address: None, expected_total: None };
        let checked_out = shop.checkout(request, command()).await.expect("an order");
        assert!(checked_out.placed);
        checked_out.order
    }

    /// Changes the status of an order.
    pub(crate) async fn change(&self, order: OrderId, to: OrderStatus) {
        let transition = OrderTransition { order, to, payment_reference: None };
        self.app.shop().change_order(transition, command()).await.expect("a change");
    }

    /// Waits until every event is out.
    pub(crate) async fn until_all_is_out(&self) {
        until("the outbox is empty", async || {
            self.app.store().outbox_lag().await.expect("the store answers") == (0, None)
        })
        .await;
    }

    /// Waits until every message that was sent before this is done with: buys once more, and waits for the mail, which
    /// comes behind theirs. Gives that order.
    pub(crate) async fn until_mails_are_done(&self, stock: Stock) -> Arc<Order> {
        let last = self.buy(stock, 1).await;
        until("the last confirmation", async || self.confirmations().await.contains_key(&confirmation(last.id))).await;
        last
    }

    /// How many mails there are about orders, by subject.
    pub(crate) async fn confirmations(&self) -> HashMap<String, usize> {
        let filter = EmailFilter { source: Some("orders".to_owned()), ..EmailFilter::default() };
        let (mut counts, mut after) = (HashMap::new(), None);
        loop {
            let page = Page { after, limit: 100 };
            let listed = self.app.store().list_emails(&filter, &page).await.expect("the store answers");
            for email in listed.rows {
                *counts.entry(email.mail.subject).or_default() += 1;
            }
            if listed.next.is_none() {
                return counts;
            }
            after = listed.next;
        }
    }
}

/// The subject of an order's confirmation.
pub(crate) fn confirmation(order: OrderId) -> String {
    format!("Your order {order}")
}

fn command<T>() -> Command<T> {
    Command { deadline: Instant::now() + PATIENCE, actor: Arc::from("test"), remember: None }
}

/// Looks again and again until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < end, "{what}: not in time");
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}
