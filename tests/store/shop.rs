//! A shop on a new, empty database: what a case does is done with it, what the journal would write it writes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use storekeeper::domain::cart::Limits;
use storekeeper::domain::cart::{Cart, CartState, HoldState, Lifetime, LineChange};
use storekeeper::domain::ids::{CartKey, CartSessionId, EmailId, InventoryId, MovementId, OrderId, ProductId, UserId};
use storekeeper::domain::money::{Currency, Money, TaxRate};
use storekeeper::domain::order::{OrderLine, OrderStatus, Totals};
use storekeeper::domain::product::{Product, ProductStatus};
use storekeeper::domain::stock::{Action, Move, Reason};
use storekeeper::domain::timestamp::Timestamp;
use storekeeper::persistence::SharedStore;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::entry::{Done, Entry, NewMovement, OrderChange, SessionAction, SessionChange, Work};
use storekeeper::persistence::records::{EmailStatus, NewEmail, NewInventory, Order, OrderedLine, Page};
use uuid::Uuid;

/// When a shop opens.
pub(crate) const START: Timestamp = Timestamp(1_795_339_800_000_000);

const LIFETIME: Lifetime = Lifetime { ttl: Duration::from_secs(900), max_age: Duration::from_secs(3600) };
const LIMITS: Limits = Limits { lines: 100, units: 10_000 };

/// A store on a new database of its own, and the way past its rules.
pub(crate) struct Opened {
    pub(crate) store: SharedStore,
    /// Runs a statement on the database itself, with as few of its rules in force as can be.
    pub(crate) corrupt: Direct<()>,
    /// Asks the database itself for a number.
    pub(crate) number: Direct<i64>,
}

/// A way to the database itself: takes a statement of SQL.
pub(crate) type Direct<T> = Box<dyn Fn(&'static str) -> Pin<Box<dyn Future<Output = T> + Send>> + Send + Sync>;

/// A shop whose clock stands still until it is moved.
pub(crate) struct Shop {
    pub(crate) store: SharedStore,
    pub(crate) clock: Clock,
    opened: Opened,
}

/// A product with stock.
pub(crate) struct Stocked {
    pub(crate) product: ProductId,
    pub(crate) inventory: InventoryId,
}

impl Shop {
    pub(crate) async fn open<F: Future<Output = Opened>>(open: impl FnOnce(Clock) -> F) -> Self {
        let clock = Clock::manual(START);
        let opened = open(clock.clone()).await;
        Self { store: Arc::clone(&opened.store), clock, opened }
    }

    pub(crate) async fn close(self) {
        self.store.close().await;
    }

    /// Breaks the database with a statement of SQL.
    pub(crate) async fn corrupt(&self, statement: &'static str) {
        (self.opened.corrupt)(statement).await;
    }

    /// What the database itself answers to a query of one number.
    pub(crate) async fn number(&self, query: &'static str) -> i64 {
        (self.opened.number)(query).await
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// A product without stock.
    pub(crate) fn product(&self, sku: &str, name: &str, price: i64) -> Product {
        Product {
            id: ProductId(Uuid::now_v7()),
            sku: sku.to_owned(),
            name: name.to_owned(),
            description: None,
            price: Money(price),
            status: ProductStatus::Published,
            inventory: None,
            version: 1,
            created_at: self.now(),
            updated_at: self.now(),
        }
    }

    pub(crate) fn stock_of(&self, product: &Product, quantity: i64) -> NewInventory {
        NewInventory {
            id: InventoryId(Uuid::now_v7()),
            product: product.id,
            sku: product.sku.clone(),
            quantity,
            movement: MovementId(Uuid::now_v7()),
            actor: "test".to_owned(),
            at: self.now(),
        }
    }

    /// A product of price 10.00 with so much stock, in the catalogue.
    pub(crate) async fn stocked(&self, sku: &str, quantity: i64) -> Stocked {
        let product = self.product(sku, sku, 1_000);
        let stock = self.stock_of(&product, quantity);
        self.store.insert_product(&product, Some(&stock)).await.expect("a new product");
        Stocked { product: product.id, inventory: stock.id }
    }

    /// Writes one entry, which must fit.
    pub(crate) async fn write(&self, entry: Entry) {
        self.write_at_once(vec![entry]).await;
    }

    /// Writes entries in one batch, each of which must fit.
    pub(crate) async fn write_at_once(&self, entries: Vec<Entry>) {
        let batch: Vec<Work> = entries.into_iter().map(|entry| Work::Write(Arc::new(entry))).collect();
        let committed = self.store.commit(Uuid::now_v7(), &batch).await.expect("a commit");
        let refused = committed.done.iter().find(|done| !matches!(done, Done::Applied(_)));
        assert!(committed.done.len() == batch.len() && refused.is_none(), "not written: {refused:?}");
    }

    pub(crate) async fn receive(&self, stock: &Stocked, units: i64) {
        let receipt = Move { action: Action::In, reason: Reason::Receipt, units };
        let movement = movement(stock.inventory, receipt, None, None);
        self.write(Entry { movements: vec![movement], ..Entry::default() }).await;
    }

    /// A cart with one line for each of `lines`.
    pub(crate) async fn cart(&self, lines: &[(&Stocked, i64)]) -> Cart {
        let mut cart = self.fresh_cart();
        for line in lines {
            let (after, entry) = self.put(&cart, line);
            self.write(entry).await;
            cart = after;
        }
        cart
    }

    /// A cart that nobody knows of.
    pub(crate) fn fresh_cart(&self) -> Cart {
        Cart::fresh(CartSessionId { key: CartKey(Uuid::now_v7()), secret: [7; 16] }, self.now(), LIFETIME)
    }

    /// A cart with one more line, and the entry that makes it so.
    pub(crate) fn put(&self, cart: &Cart, (stock, quantity): &(&Stocked, i64)) -> (Cart, Entry) {
        let line = cart.add(stock.product, stock.inventory, *quantity, LIMITS).expect("within limits");
        self.changed(cart, line)
    }

    /// Sets the quantity of a product in a cart.
    pub(crate) async fn set(&self, cart: &Cart, stock: &Stocked, quantity: i64) -> Cart {
        let line = cart.set(stock.product, quantity, LIMITS).expect("within limits").expect("a change");
        let (after, entry) = self.changed(cart, line);
        self.write(entry).await;
        after
    }

    fn changed(&self, cart: &Cart, line: LineChange) -> (Cart, Entry) {
        let after = cart.changed(Some(line), self.now(), LIFETIME);
        let (secret, created_at, expires_at) = (cart.id.secret, cart.created_at, after.expires_at);
        let action = match cart.version {
            0 => SessionAction::Open { secret, created_at, expires_at },
            seen => SessionAction::Touch { seen, expires_at },
        };
        let units = line.units_taken();
        let stock_move = if units > 0 { Move::hold(units) } else { Move::release(-units) };
        let entry = Entry {
            session: Some(SessionChange { key: cart.id.key, action }),
            lines: vec![line],
            line_end: Some(HoldState::Released),
            movements: vec![movement(line.inventory(), stock_move, Some(cart.id.key), None)],
            ..Entry::default()
        };
        (after, entry)
    }

    /// Ends a cart as cleared or, when its time is over, as expired.
    pub(crate) async fn end(&self, cart: &Cart, state: CartState) {
        let (line_end, give): (_, fn(i64) -> Move) = match state {
            CartState::Expired => (HoldState::Expired, Move::expire),
            CartState::Open | CartState::Ordered | CartState::Cleared => (HoldState::Released, Move::release),
        };
        let key = cart.id.key;
        self.write(Entry {
            session: Some(SessionChange { key, action: SessionAction::End { seen: cart.version, state } }),
            lines: cart.lines.iter().map(|line| LineChange::End(*line)).collect(),
            line_end: Some(line_end),
            movements: cart
                .lines
                .iter()
                .map(|line| movement(line.inventory, give(line.quantity), Some(key), None))
                .collect(),
            ..Entry::default()
        })
        .await;
    }

    /// Makes an order of a cart.
    pub(crate) async fn check_out(&self, cart: &Cart, user: UserId) -> Order {
        let order = self.order_of(cart, user).await;
        self.write(placing(cart, &order)).await;
        order
    }

    /// The order that a cart makes.
    pub(crate) async fn order_of(&self, cart: &Cart, user: UserId) -> Order {
        let mut lines = Vec::new();
        for line in &cart.lines {
            let product = self.store.product(line.product).await.expect("a read").expect("a product");
            let total = product.price.times(line.quantity).expect("fits");
            let (name, sku, price) = (product.name, product.sku, product.price);
            let line_sold = OrderLine { product: line.product, name, sku, price, quantity: line.quantity, total };
            lines.push(OrderedLine { line: line_sold, inventory: line.inventory });
        }
        let totals = Totals::of(lines.iter().map(|line| line.line.total), TaxRate::NONE).expect("fits");
        Order {
            id: OrderId(Uuid::now_v7()),
            cart: cart.id,
            user,
            user_name: "Ann Lee".to_owned(),
            user_email: "ann@example.org".to_owned(),
            currency: Currency::from_code("USD").expect("a currency"),
            totals,
            status: OrderStatus::Pending,
            sequence: 1,
            shipping_address: Some(r#"{"street":"Elm Street 1"}"#.to_owned()),
            payment_reference: None,
            lines,
            created_at: self.now(),
            updated_at: self.now(),
        }
    }

    /// Changes the status of an order that has had no other change; a cancelled one's units come back.
    pub(crate) async fn first_transition(&self, order: &Order, to: OrderStatus) {
        self.write(transition(order, to)).await;
    }

    /// Publishes all changes that wait.
    pub(crate) async fn publish_all(&self) {
        let now = self.now();
        let claimed = self.store.claim_changes(now, now, 1_000).await.expect("a claim");
        let positions: Vec<i64> = claimed.iter().map(|change| change.position).collect();
        self.store.mark_published(&positions, now).await.expect("a mark");
    }

    /// No rule of the books is broken.
    pub(crate) async fn assert_in_order(&self) {
        let verdicts = self.store.check().await.expect("verdicts");
        let broken: Vec<_> = verdicts.iter().filter(|verdict| verdict.broken_count > 0).collect();
        assert!(broken.is_empty(), "{broken:#?}");
    }

    /// A mail that was made now.
    pub(crate) fn mail(&self, recipient: &str, status: EmailStatus) -> NewEmail {
        NewEmail {
            id: EmailId(Uuid::now_v7()),
            sender: "shop@example.org".to_owned(),
            recipient: recipient.to_owned(),
            subject: "Hello".to_owned(),
            body: "Text".to_owned(),
            html: Some("<p>Text</p>".to_owned()),
            source: "auth".to_owned(),
            status,
            created_at: self.now(),
        }
    }
}

/// The entry that makes an order of a cart.
pub(crate) fn placing(cart: &Cart, order: &Order) -> Entry {
    let (key, seen) = (cart.id.key, cart.version);
    Entry {
        session: Some(SessionChange { key, action: SessionAction::End { seen, state: CartState::Ordered } }),
        lines: cart.lines.iter().map(|line| LineChange::End(*line)).collect(),
        line_end: Some(HoldState::Sold),
        movements: cart
            .lines
            .iter()
            .map(|line| movement(line.inventory, Move::sell(line.quantity), Some(key), Some(order.id)))
            .collect(),
        order: Some(OrderChange::Place(Arc::new(order.clone()))),
        traceparent: Some(TRACEPARENT.to_owned()),
        ..Entry::default()
    }
}

/// The entry that changes the status of an order that has had no other change; a cancelled one's units come back.
pub(crate) fn transition(order: &Order, to: OrderStatus) -> Entry {
    let restock =
        |line: &OrderedLine| movement(line.inventory, Move::restock(line.line.quantity), None, Some(order.id));
    Entry {
        movements: match to {
            OrderStatus::Cancelled => order.lines.iter().map(restock).collect(),
            OrderStatus::Pending | OrderStatus::Confirmed | OrderStatus::Shipped | OrderStatus::Delivered => Vec::new(),
        },
        order: Some(OrderChange::Transition {
            id: order.id,
            seen: OrderStatus::Pending,
            to,
            sequence: 2,
            payment_reference: Some("payment 1".to_owned()),
        }),
        traceparent: Some(TRACEPARENT.to_owned()),
        ..Entry::default()
    }
}

pub(crate) fn new_user() -> UserId {
    UserId(Uuid::now_v7())
}

/// A page of a list.
pub(crate) fn page(after: Option<&str>, limit: u32) -> Page {
    Page { after: after.map(str::to_owned), limit }
}

pub(crate) fn movement(
    inventory: InventoryId,
    stock_move: Move,
    cart: Option<CartKey>,
    order: Option<OrderId>,
) -> NewMovement {
    let id = MovementId(Uuid::now_v7());
    NewMovement { id, inventory, stock_move, cart, order, reference: None, actor: "test".into() }
}

/// Where changes of orders are said to be made.
pub(crate) const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
