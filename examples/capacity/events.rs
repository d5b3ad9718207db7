//! Orders with all that follows them: events out and confirmed, consumed, mails kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use crate::api::Api;
use crate::books::Books;
use crate::process::Spent;
use crate::rabbitmq::VirtualHost;
use crate::server::{self, Ground, Server};
use crate::{Arguments, address, adds, client, fill, tell};

/// Products that are bought.
const PRODUCTS: u32 = 1_000;
/// Buyers who take turns.
const BUYERS: usize = 8;
/// How often it is looked how far events and mails are.
const LOOK_PERIOD: Duration = Duration::from_millis(20);
/// For how long it is waited for the last mail.
const PATIENCE: Duration = Duration::from_secs(180);

/// How many orders' mails are kept, and whether events wait to be marked as out. Looked for in narrow indexes, and only
/// when all orders are placed, so that looking costs next to nothing.
const LOOK: &str = "SELECT (SELECT count(*) FROM consumed_messages WHERE queue = 'send-email'),
    EXISTS (SELECT 1 FROM outbox WHERE published_at IS NULL)";
/// Mails of orders, those of them that are for different orders, and events, three of each placed order.
const BOOKS: &str = "SELECT count(*), count(DISTINCT subject), (SELECT count(*) + 2 * count(CASE sequence WHEN 1 THEN 1 END) FROM outbox)
    FROM emails WHERE source = 'orders'";

/// When what came last was done, since the first checkout was sent.
struct Followed {
    published: Option<Duration>,
    mailed: Option<Duration>,
}

/// Measures, prints, and gives whether all is right.
pub(crate) async fn measure(arguments: &Arguments) -> bool {
    let broker =
        if arguments.real { Some(spawn_blocking(VirtualHost::new).await.expect("RabbitMQ starts")) } else { None };
    let ground = Ground::new(arguments.real).await;
    fill(&ground, PRODUCTS).await;
    let mut settings = server::long_lived_carts().to_vec();
    settings.extend(broker.as_ref().map(|broker| ("AMQP_URL", broker.url.clone())));
    let database = ground.database();
    let mut server = Server::on(ground, settings).await;
    let orders = arguments.orders;
    let with = if broker.is_some() { " and RabbitMQ" } else { "" };
    println!("events of {orders} orders, {}{with}", server.place());

    let mut books = Books::open(&database).await;
    let checkouts = Arc::new(carts(arguments, &server).await);
    let before = Spent::until_now(server.process());
    let (connections, count) = (usize::from(arguments.connections), orders as usize);
    let begin = Instant::now();
    let load = client::send(address(&server), connections, checkouts, count).await;
    let followed = follow(&mut books, orders.into(), begin).await;
    let spent = Spent::until_now(server.process());

    println!("{:>10.2} s  until the last order was acknowledged", load.took.as_secs_f64());
    print_when(followed.published, "until the last event was confirmed and marked as published");
    print_when(followed.mailed, "until the last mail was kept");
    spent.tell_since(&before, orders, "an order");
    let (mails, ordered, events): (i64, i64, i64) = books.row(BOOKS).await;
    let orders = i64::from(orders);
    let mut right =
        tell(mails == orders && ordered == orders, &format!("{mails} mails for {ordered} orders of {orders}"));
    right &= tell(followed.published.is_some(), &format!("{events} events, all of them published"));
    right &= tell(server.stop() == Some(true), "the server stops in order");
    right & tell(server.check() == Some(true), "storekeeper check")
}

fn print_when(when: Option<Duration>, what: &str) {
    match when {
        Some(when) => println!("{:>10.2} s  {what}", when.as_secs_f64()),
        None => println!("{:>12}  {what}: not after {PATIENCE:?}", "-"),
    }
}

/// Fills carts; gives the requests that buy them.
async fn carts(arguments: &Arguments, server: &Server) -> client::Requests {
    let api = Api::sign_in(server).await;
    let mut buyers = Vec::with_capacity(BUYERS);
    for number in 0..BUYERS {
        buyers.push(api.buyer(&format!("buyer-{number}@example.org")).await);
    }
    let (requests, connections) = (Arc::new(adds(arguments.orders, PRODUCTS)), usize::from(arguments.connections));
    let filled = client::send(address(server), connections, requests, arguments.orders as usize).await;
    let buy = |(cart, buyer): (&String, &String)| {
        let body = format!(
            r#"{{"cartSessionId":"{cart}","shippingAddress":{{"street":"1 High Street","city":"Springfield"}}}}"#
        );
        client::post("/orders/checkout", Some(buyer), &body)
    };
    let all = filled.kept.iter().zip(buyers.iter().cycle()).map(buy).collect();
    client::Requests { all, status: 201, keep: None }
}

/// Looks until all is out and all mails are kept, or patience is over. All orders are placed.
async fn follow(books: &mut Books, orders: i64, begin: Instant) -> Followed {
    let mut followed = Followed { published: None, mailed: None };
    while begin.elapsed() < PATIENCE && (followed.published.is_none() || followed.mailed.is_none()) {
        let (mails, waiting): (i64, bool) = books.row(LOOK).await;
        let now = begin.elapsed();
        followed.mailed = followed.mailed.or_else(|| (mails == orders).then_some(now));
        followed.published = followed.published.or_else(|| (!waiting).then_some(now));
        tokio::time::sleep(LOOK_PERIOD).await;
    }
    followed
}
