//! Random walks: thousands of requests by seed on the real stack, each answer compared with the model's, with restarts
//! in between; at the end everything that is kept is compared too.
//!
//! A failure names its seed. `MODEL_SEED=<seed>` walks that one again, `MODEL_STEPS=<number>` further or less far,
//! `SOAK_SECONDS=<number>` new ones for so long.

use std::time::{Duration, Instant};

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use reqwest::Method;
use storekeeper::actors::command::{CartView, Command, CommandError, OrderTransition, StockView};
use storekeeper::actors::shop::{Buyer, CheckoutRequest, StockRequest};
use storekeeper::domain::cart::{CartState, Lifetime, Limits};
use storekeeper::domain::ids::{CartKey, CartSessionId, InventoryId, OrderId, ProductId};
use storekeeper::domain::money::{Money, TaxRate};
use storekeeper::domain::order::OrderStatus;
use storekeeper::domain::stock::{Action, Balance, Reason};
use storekeeper::domain::timestamp::Timestamp;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::records;
use uuid::Uuid;

use crate::model::{self, Model, Said, Stock};
use crate::support::{TestShop, until};

const SEEDS: [u64; 3] = [20_261_122, 7, 4_711];
const STEPS: usize = 1_200;
const ITEMS: usize = 5;
const BUYERS: usize = 3;
/// How long a request may take, and a sweep.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
enum Step {
    Add { cart: Option<usize>, item: usize, quantity: i64 },
    Set { cart: usize, item: usize, quantity: i64 },
    Clear { cart: usize },
    Checkout { cart: usize, buyer: usize, expected: Option<i64> },
    Transition { order: usize, to: OrderStatus },
    MoveStock { item: usize, units: i64 },
    Price { item: usize, cents: i64 },
    Pass { time: Duration },
    Restart,
}

/// A shop and its model on their way; what is numbered in the model has its real name here.
struct Walk {
    shop: TestShop,
    model: Model,
    items: Vec<(ProductId, InventoryId)>,
    buyers: Vec<Buyer>,
    sessions: Vec<CartSessionId>,
    orders: Vec<OrderId>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_the_models() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a whole number"));
    let steps = number("MODEL_STEPS").map_or(STEPS, |steps| usize::try_from(steps).expect("a number of steps"));
    if let Some(seed) = number("MODEL_SEED") {
        return Box::pin(walk(seed, steps)).await;
    }
    let [one, two, three] = SEEDS;
    tokio::join!(Box::pin(walk(one, steps)), Box::pin(walk(two, steps)), Box::pin(walk(three, steps)));
    let end = Instant::now() + Duration::from_secs(number("SOAK_SECONDS").unwrap_or(0));
    while Instant::now() < end {
        let seed = u64::try_from(Clock::system().now().0).expect("a time after 1970");
        Box::pin(walk(seed, steps)).await;
    }
}

async fn walk(seed: u64, steps: usize) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut walk = Walk::begin().await;
    for number in 1..=steps {
        let step = draw(&mut random, &walk.model);
        let again = format!("step {number}, {step:?}; MODEL_SEED={seed} MODEL_STEPS={number} walks there again");
        let expected = predict(&mut walk.model, &step);
        let said;
        (walk, said) = Box::pin(walk.perform(&step)).await;
        assert_eq!(said, expected, "{again}");
        walk.assert_stock(&again).await;
    }
    Box::pin(walk.end(&format!("MODEL_SEED={seed} MODEL_STEPS={steps} walks there again"))).await;
}

fn below(random: &mut TestRng, limit: usize) -> usize {
    usize::try_from(random.next_u64() % limit as u64).expect("less than the limit")
}

fn from_to(random: &mut TestRng, least: i64, most: i64) -> i64 {
    least + i64::try_from(below(random, usize::try_from(most - least + 1).expect("a range"))).expect("fits")
}

/// One of so many, a late one more often than not.
fn one_of(random: &mut TestRng, count: usize) -> usize {
    if below(random, 4) == 0 { below(random, count) } else { count - 1 - below(random, count.min(5)) }
}

fn draw(random: &mut TestRng, model: &Model) -> Step {
    let item = below(random, ITEMS);
    let (carts, orders) = (model.carts.len(), model.orders.len());
    let add = |random: &mut TestRng, cart| Step::Add { cart, item, quantity: from_to(random, 1, 7) };
    match below(random, 1_000) {
        0..150 => add(random, None),
        _ if carts == 0 => add(random, None),
        150..430 => {
            let cart = one_of(random, carts);
            add(random, Some(cart))
        }
        430..590 => Step::Set { cart: one_of(random, carts), item, quantity: from_to(random, 0, 9) },
        590..640 => Step::Clear { cart: one_of(random, carts) },
        640..800 => {
            let (cart, buyer) = (one_of(random, carts), below(random, BUYERS));
            let expected = (below(random, 5) == 0).then(|| from_to(random, 0, 9_000));
            Step::Checkout { cart, buyer, expected }
        }
        800..900 if orders > 0 => {
            let to = OrderStatus::NAMES[below(random, OrderStatus::NAMES.len())].0;
            Step::Transition { order: one_of(random, orders), to }
        }
        900..930 => Step::Price { item, cents: from_to(random, 0, 2_000) },
        930..965 => {
            let seconds = [1, 60, 300, 400, 899, 900, 1_200][below(random, 7)];
            Step::Pass { time: Duration::from_secs(seconds) }
        }
        965..970 => Step::Restart,
        _ => {
            let units = from_to(random, -8, 12);
            Step::MoveStock { item, units: if units == 0 { 1 } else { units } }
        }
    }
}

fn predict(model: &mut Model, step: &Step) -> Said {
    match *step {
        Step::Add { cart, item, quantity } => model.add(cart, item, quantity),
        Step::Set { cart, item, quantity } => model.set(cart, item, quantity),
        Step::Clear { cart } => model.clear(cart),
        Step::Checkout { cart, buyer, expected } => model.checkout(cart, buyer, expected),
        Step::Transition { order, to } => model.transition(order, to),
        Step::MoveStock { item, units } => model.move_stock(item, units),
        Step::Price { item, cents } => {
            model.items[item].price = cents;
            Said::Done
        }
        Step::Pass { time } => {
            model.pass(time);
            Said::Done
        }
        Step::Restart => Said::Done,
    }
}

fn command<T>() -> Command<T> {
    Command { deadline: Instant::now() + PATIENCE, actor: "model".into(), remember: None }
}

impl Walk {
    async fn begin() -> Self {
        let clock = Clock::manual(Clock::system().now());
        let shop = TestShop::open_at(clock, |config| {
            config.shop.lifetime = Lifetime { ttl: model::TTL, max_age: model::MAX_AGE };
            config.shop.limits = Limits { lines: model::LINES, units: model::UNITS };
            config.shop.tax = TaxRate::parse(&format!("0.{}", model::TAX_PERCENT)).expect("a rate");
            // Actors go and come back all the time.
            config.actors.idle_ttl = Duration::from_millis(1);
        })
        .await;
        let (mut items, mut stock) = (Vec::new(), Vec::new());
        for _ in 0..ITEMS {
            let item = shop.api.item("5.55", 30).await;
            items.push((item.product.parse().expect("an id"), item.inventory.parse().expect("an id")));
            stock.push(Stock { price: 555, on_hand: 30, held: 0, rows: 1 });
        }
        let buyers = shop.buyers(BUYERS).await;
        let buyers = buyers.into_iter().map(|buyer| Buyer { user: buyer.id, name: "Ann".into(), email: buyer.email });
        let model = Model { now: shop.clock().now(), items: stock, carts: Vec::new(), orders: Vec::new() };
        Self { shop, model, items, buyers: buyers.collect(), sessions: Vec::new(), orders: Vec::new() }
    }

    /// Has a step done by the shop.
    async fn perform(mut self, step: &Step) -> (Self, Said) {
        let said = match *step {
            Step::Add { cart, item, quantity } => {
                let session = cart.map(|cart| self.sessions[cart]);
                let product = self.items[item].0;
                let shop = self.shop.app.shop();
                let added = shop.add_to_cart(session, product, None, quantity, false, command()).await;
                added.map(|view| self.cart(&view))
            }
            Step::Set { cart, item, quantity } => {
                let (session, product) = (self.sessions[cart], self.items[item].0);
                let set = self.shop.app.shop().set_cart_item(Some(session), product, quantity, command()).await;
                set.map(|view| self.cart(&view))
            }
            Step::Clear { cart } => {
                let cleared = self.shop.app.shop().clear_cart(Some(self.sessions[cart]), command()).await;
                cleared.map(|()| Said::Done)
            }
            Step::Checkout { cart, buyer, expected } => self.check_out(cart, buyer, expected).await,
            Step::Transition { order, to } => {
                let transition = OrderTransition { order: self.orders[order], to, payment_reference: None };
                let changed = self.shop.app.shop().change_order(transition, command()).await;
                changed.map(|changed| Said::Order { number: order, placed: false, order: self.order(&changed) })
            }
            Step::MoveStock { item, units } => self.move_stock(item, units).await,
            Step::Price { item, cents } => {
                let body = serde_json::from_str(&format!("{{\"price\": {}.{:02}}}", cents / 100, cents % 100));
                let path = format!("/products/{}", self.items[item].0);
                let put = self.shop.api.ask_as_admin(Method::PUT, &path).json(&body.expect("JSON")).send();
                put.await.expect_status(200);
                Ok(Said::Done)
            }
            Step::Pass { time } => {
                self.shop.clock().advance(time);
                self.until_swept().await;
                Ok(Said::Done)
            }
            Step::Restart => {
                self.shop = self.shop.restart().await;
                Ok(Said::Done)
            }
        };
        let said = said.unwrap_or_else(|error| self.refusal(&error));
        (self, said)
    }

    async fn check_out(&mut self, cart: usize, buyer: usize, expected: Option<i64>) -> Result<Said, CommandError> {
        let request = CheckoutRequest {
            session: self.sessions[cart],
            buyer: self.buyers[buyer].clone(),
            shipping_address: None,
            expected_total: expected.map(Money),
        };
        let done = self.shop.app.shop().checkout(request, command()).await?;
        let known = self.orders.iter().position(|order| *order == done.order.id);
        let number = known.unwrap_or_else(|| {
            self.orders.push(done.order.id);
            self.orders.len() - 1
        });
        Ok(Said::Order { number, placed: done.placed, order: self.order(&done.order) })
    }

    async fn move_stock(&self, item: usize, units: i64) -> Result<Said, CommandError> {
        let action = if units > 0 { Action::In } else { Action::Out };
        let reason = Reason::default_for(action);
        let inventory = self.items[item].1;
        let request = StockRequest { inventory, action, units: units.abs(), reason, reference: None };
        let moved = self.shop.app.shop().change_stock(request, command::<StockView>()).await?;
        let balance = moved.inventory.balance;
        Ok(Said::Stock { on_hand: balance.on_hand, held: balance.held })
    }

    /// Waits until the sweep has ended what is due.
    async fn until_swept(&self) {
        let look = async || {
            let (now, first) = (self.shop.clock().now(), (Timestamp(0), CartKey(Uuid::nil())));
            let due = self.shop.app.store().carts_due(now, first, 1).await.expect("the store answers");
            let swept = due.is_empty() && self.stock().await == self.predicted_stock();
            swept.then_some(())
        };
        until("what is due has ended", PATIENCE, look).await;
    }

    async fn stock(&self) -> Vec<(Balance, i64)> {
        let mut stock = Vec::with_capacity(ITEMS);
        for (_, inventory) in &self.items {
            let view = self
                .shop
                .app
                .shop()
                .stock(*inventory, Instant::now() + PATIENCE)
                .await
                .expect("the storekeeper answers");
            stock.push((view.inventory.balance, view.available));
        }
        stock
    }

    fn predicted_stock(&self) -> Vec<(Balance, i64)> {
        let balance = |stock: &Stock| Balance { on_hand: stock.on_hand, held: stock.held, seq: stock.rows };
        self.model.items.iter().map(|stock| (balance(stock), stock.on_hand - stock.held)).collect()
    }

    async fn assert_stock(&self, again: &str) {
        assert_eq!(self.stock().await, self.predicted_stock(), "{again}");
    }

    /// Compares all that is kept with the model, and stops the shop.
    async fn end(self, again: &str) {
        let store = self.shop.app.store();
        for (number, (session, predicted)) in self.sessions.iter().zip(&self.model.carts).enumerate() {
            let kept = store.cart(session.key).await.expect("the store answers").expect("a cart").cart;
            assert_eq!(kept.state, predicted.state, "cart {number}; {again}");
            // A cleared one shows the lines that it gave up earlier, too.
            if kept.state != CartState::Cleared {
                let lines: Vec<_> = kept.lines.iter().map(|line| (self.item(line.product), line.quantity)).collect();
                assert_eq!(lines, predicted.lines, "cart {number}; {again}");
            }
        }
        for (number, (order, predicted)) in self.orders.iter().zip(&self.model.orders).enumerate() {
            let kept = store.order(*order).await.expect("the store answers").expect("an order");
            assert_eq!(self.order(&kept), *predicted, "order {number}; {again}");
        }
        assert_eq!((self.sessions.len(), self.orders.len()), (self.model.carts.len(), self.model.orders.len()));
        self.shop.stop().await;
    }

    fn item(&self, product: ProductId) -> usize {
        self.items.iter().position(|item| item.0 == product).expect("a product of this shop")
    }

    fn cart(&mut self, view: &CartView) -> Said {
        let session = view.session.expect("a session");
        let known = self.sessions.iter().position(|known| *known == session);
        let number = known.unwrap_or_else(|| {
            self.sessions.push(session);
            self.sessions.len() - 1
        });
        Said::Cart {
            number,
            lines: view.lines.iter().map(|line| (self.item(line.product), line.quantity)).collect(),
            subtotal: view.subtotal.0,
            expires_at: view.expires_at.expect("an end"),
        }
    }

    fn order(&self, order: &records::Order) -> model::Order {
        let line = |ordered: &records::OrderedLine| {
            let line = &ordered.line;
            (self.item(line.product), line.quantity, line.price.0)
        };
        model::Order {
            buyer: self.buyers.iter().position(|buyer| buyer.user == order.user).expect("a buyer of this shop"),
            status: order.status,
            sequence: order.sequence,
            total: order.totals.grand_total.0,
            lines: order.lines.iter().map(line).collect(),
        }
    }

    fn refusal(&self, error: &CommandError) -> Said {
        if let CommandError::HoldExpired { lines } = error {
            let lines: Vec<_> = lines.iter().map(|line| (self.item(line.product), line.quantity)).collect();
            return model::expired(lines);
        }
        if let CommandError::PriceChanged { grand_total } = error {
            return Said::Refused(format!("the total is {}", grand_total.0));
        }
        Said::Refused(error.to_string())
    }
}
