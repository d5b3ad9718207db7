//! What people do, played by goose.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use goose::config::GooseConfiguration;
use goose::metrics::GooseCoordinatedOmissionMitigation;
use goose::prelude::*;
use reqwest::Response;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::api::{Api, Item};
use crate::server::Server;
use crate::zipf::Zipf;
use crate::{Arguments, Load};

const SESSION_HEADER: &str = "X-Cart-Session-Id";
/// Products that are put on the shelf at a time.
const AT_ONCE: usize = 32;
/// People at a time, when nobody says how many, and seconds, when nobody says for how long.
const USERS: u16 = 64;
const SECONDS: u64 = 20;
/// Products, when nobody says how many.
pub(crate) const PRODUCTS: u32 = 1_000;
/// How often figures are shown while the load runs, seconds.
const SHOWN_PERIOD: usize = 5;

/// Who and what a load has, and what was answered to whom.
pub(crate) struct People {
    pub(crate) items: Vec<Item>,
    /// Access tokens.
    pub(crate) buyers: Vec<String>,
    popularity: Zipf,
    turn: AtomicUsize,
    /// Orders that were acknowledged.
    pub(crate) orders: AtomicU64,
    /// Units in them.
    pub(crate) units: AtomicU64,
    /// Times that somebody was told that there is not enough.
    pub(crate) sold_out: AtomicU64,
    /// Answers that no shop should give, by their codes.
    pub(crate) faults: Mutex<BTreeMap<String, u64>>,
}

impl People {
    /// Fills the shelves and signs buyers in.
    pub(crate) async fn gather(api: &Api, products: u32, stock: i64, buyers: u16) -> Self {
        let run = format!("{:08x}", getrandom::u32().expect("the system gives random bytes"));
        let skus: Vec<String> = (0..products).map(|number| format!("{run}-{number}")).collect();
        let mut items = Vec::with_capacity(skus.len());
        for some in skus.chunks(AT_ONCE) {
            let mut making = JoinSet::new();
            for sku in some {
                let (api, sku) = (api.clone(), sku.clone());
                making.spawn(async move { api.item(&sku, stock).await });
            }
            items.extend(making.join_all().await);
        }
        let mut tokens = Vec::with_capacity(usize::from(buyers));
        for number in 0..buyers {
            tokens.push(api.buyer(&format!("buyer-{run}-{number}@example.org")).await);
        }
        let popularity = Zipf::new(items.len());
        let [orders, units, sold_out] = [const { AtomicU64::new(0) }; 3];
        let (turn, faults) = (AtomicUsize::new(0), Mutex::default());
        Self { items, buyers: tokens, popularity, turn, orders, units, sold_out, faults }
    }

    /// A product, the popular ones more often.
    fn item(&self) -> &Item {
        &self.items[self.popularity.rank(chance())]
    }

    /// Whose turn it is to buy.
    fn buyer(&self) -> &str {
        &self.buyers[self.turn.fetch_add(1, Ordering::Relaxed) % self.buyers.len()]
    }
}

/// From 0 to 1.
fn chance() -> f64 {
    f64::from(getrandom::u32().expect("the system gives random bytes")) / (f64::from(u32::MAX) + 1.0)
}

/// Plays a load to its end, and writes goose's report.
pub(crate) async fn play(arguments: &Arguments, server: &Server, people: &Arc<People>) {
    std::fs::create_dir_all(&arguments.reports).expect("a folder for the report");
    let report = arguments.reports.join(format!("{}.html", arguments.load.name()));
    let (users, name) = (usize::from(arguments.users.unwrap_or(USERS)), arguments.load.name());
    let mut configuration = GooseConfiguration::default();
    configuration.host = Some(server.base().to_owned());
    configuration.users = Some(users);
    configuration.increase_rate = Some(users.to_string());
    configuration.run_time = Some(format!("{}s", arguments.seconds.unwrap_or(SECONDS)));
    configuration.report_file = vec![report.display().to_string()];
    configuration.running_metrics = Some(SHOWN_PERIOD);
    // A person who waits for an answer asks nothing meanwhile: what would have been asked is counted as late.
    configuration.co_mitigation = Some(GooseCoordinatedOmissionMitigation::Average);
    // It counts what is sold out as an error. Whatever is one is in the verdict.
    configuration.no_error_summary = true;
    configuration.quiet = 1;
    let steps = steps(arguments.load, people);
    let think = Duration::from_millis(arguments.think_ms);
    let scenario = Scenario::new(name).set_wait_time(think / 2, think).expect("a time to think");
    let scenario = steps.into_iter().fold(scenario, Scenario::register_transaction);
    let attack = GooseAttack::initialize_with_config(configuration).expect("goose takes the settings");
    let attack = attack.register_scenario(scenario);
    Box::pin(attack.execute()).await.expect("goose plays it");
    println!("the report is {}", report.display());
}

/// What people of a load do, and how often of a hundred times.
fn steps(load: Load, people: &Arc<People>) -> Vec<Transaction> {
    let step = |name: &str, weight: usize, function: TransactionFunction| {
        Transaction::new(function).set_name(name).set_weight(weight).expect("a weight")
    };
    let list = || step("look at a list", 20, doing(people, |user, _| Box::pin(list(user))));
    let look = || step("look at a product", 80, doing(people, |user, people| Box::pin(look(user, people))));
    let buy = |name: &str, weight, lines, of_two| {
        step(name, weight, doing(people, move |user, people| Box::pin(buy(user, people, lines, of_two))))
    };
    match load {
        Load::FlashSale => vec![buy("buy at once", 1, 1, 2)],
        Load::Browse => vec![list(), look()],
        Load::Mixed => vec![list(), look(), buy("fill a cart", 20, 3, 1)],
        Load::Peak => Vec::new(),
    }
}

type Done<'a> = std::pin::Pin<Box<dyn Future<Output = TransactionResult> + Send + 'a>>;

/// A step as goose takes it, with what the load has.
fn doing(
    people: &Arc<People>,
    step: impl for<'a> Fn(&'a mut GooseUser, &'a People) -> Done<'a> + Send + Sync + Clone + 'static,
) -> TransactionFunction {
    let people = Arc::clone(people);
    Arc::new(move |user| {
        let (people, step) = (Arc::clone(&people), step.clone());
        Box::pin(async move { step(user, &people).await })
    })
}

async fn list(user: &mut GooseUser) -> TransactionResult {
    let answer = user.get_named("/products?limit=20&sort=name", "GET /products").await?;
    read(answer.response?).await
}

async fn look(user: &mut GooseUser, people: &People) -> TransactionResult {
    let answer = user.get_named(&format!("/products/{}", people.item().product), "GET /products/{id}").await?;
    read(answer.response?).await
}

/// Reads all of an answer, so that its connection can be used again.
async fn read(answer: Response) -> TransactionResult {
    answer.bytes().await?;
    Ok(())
}

/// A guest fills a cart with up to so many lines; `of_two` such carts of two are bought.
async fn buy(user: &mut GooseUser, people: &People, lines: u32, of_two: u32) -> TransactionResult {
    let (mut session, mut units) = (None, 0);
    for _ in 0..=(chance() * f64::from(lines)) as u32 % lines {
        let wish = json!({"productId": people.item().product, "quantity": 1});
        let cart = change(user, people, "/cart/add-to-cart", &wish, |asked| match &session {
            Some(session) => asked.header(SESSION_HEADER, session),
            None => asked,
        });
        if let Some(cart) = cart.await? {
            session = cart["cartSessionId"].as_str().map(str::to_owned);
            units += 1;
        }
    }
    let Some(session) = session else { return Ok(()) };
    if chance() * 2.0 >= f64::from(of_two) {
        // They go away: the cart's time will end it.
        return Ok(());
    }
    let (token, wish) = (people.buyer(), json!({"cartSessionId": session}));
    let order = change(user, people, "/orders/checkout", &wish, |asked| asked.bearer_auth(token)).await?;
    if order.is_some() {
        people.orders.fetch_add(1, Ordering::Relaxed);
        people.units.fetch_add(units, Ordering::Relaxed);
    }
    Ok(())
}

/// Asks for a change; gives what was answered, `None` when there is not enough of it, which is a good answer too.
async fn change(
    user: &mut GooseUser,
    people: &People,
    path: &str,
    body: &Value,
    with: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
) -> Result<Option<Value>, Box<TransactionError>> {
    let asked = with(user.get_request_builder(&GooseMethod::Post, path)?.json(body));
    let request = GooseRequest::builder().method(GooseMethod::Post).path(path).set_request_builder(asked).build();
    let mut answered = user.request(request).await?;
    let answer = answered.response?;
    let status = answer.status();
    let document: Value = answer.json().await?;
    if status.is_success() {
        return Ok(Some(document));
    }
    if document["code"] == "insufficient_stock" {
        people.sold_out.fetch_add(1, Ordering::Relaxed);
        user.set_success(&mut answered.request)?;
    } else {
        let fault = format!("{} {}", status.as_u16(), document["code"]);
        *people.faults.lock().unwrap_or_else(PoisonError::into_inner).entry(fault).or_default() += 1;
    }
    Ok(None)
}
