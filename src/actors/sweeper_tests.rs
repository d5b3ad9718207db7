//! The end of carts on a clock that stands still, with the runtime's time paused: a second passes when the test says so.

use std::sync::mpsc;

use actix_rt::Arbiter;
use tempfile::TempDir;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::*;
use crate::actors::command::CartView;
use crate::actors::house::{House, HouseLimits, HouseParts, Unfinished};
use crate::actors::shop::{Buyer, CheckoutRequest, ShopRules};
use crate::actors::supervision::Policy;
use crate::domain::cart::{Cart, Lifetime, Limits};
use crate::domain::ids::{CartSessionId, InventoryId, MovementId, ProductId, UserId};
use crate::domain::money::{Currency, Money, TaxRate};
use crate::domain::product::{Product, ProductStatus};
use crate::domain::stock::Reason;
use crate::messaging::mail::Templates;
use crate::observability::metrics::Metrics;
use crate::persistence::entry::{Done, Entry, OrderChange, SessionAction, SessionChange, Work};
use crate::persistence::records::{NewInventory, Order, OrderedLine, Page};
use crate::persistence::sqlite::{SqliteOptions, SqliteStore};

const START: Timestamp = Timestamp(1_795_339_800_000_000);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3_600);
const RETENTION: Retention = Retention {
    captured_mails: DAY,
    sent_mails: DAY,
    logins: DAY,
    idempotency_keys: DAY,
    message_ids: DAY,
    published_events: DAY,
    dead_letters: DAY,
    journal_batches: DAY,
};
const LIFETIME: Lifetime = Lifetime { ttl: Duration::from_secs(900), max_age: Duration::from_secs(3_600) };
const LIMITS: Limits = Limits { lines: 10, units: 100 };
const ORDER_PENDING_TTL: Duration = Duration::from_secs(2 * 3_600);
/// How long a request may take, and how long the test looks for what has to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A house with one product of ten units.
struct Fixture {
    house: House,
    store: SharedStore,
    clock: Clock,
    product: ProductId,
    inventory: InventoryId,
    _folder: TempDir,
    /// A blocking task that ends with it: while one runs, the runtime's paused time does not move by itself.
    _time_holder: mpsc::Sender<()>,
}

impl Fixture {
    async fn open() -> Self {
        let (clock, folder) = (Clock::manual(START), tempfile::tempdir().expect("a folder"));
        let options = SqliteOptions { folder: folder.path().to_owned(), readers: 2 };
        let store: SharedStore = Arc::new(SqliteStore::open(options, clock.clone()).await.expect("a store"));
        let (product, inventory) = (ProductId(Uuid::now_v7()), InventoryId(Uuid::now_v7()));
        let (sku, status) = ("TEA-1".to_owned(), ProductStatus::Published);
        let stock = NewInventory {
            id: inventory,
            product,
            sku: sku.clone(),
            quantity: 10,
            movement: MovementId(Uuid::now_v7()),
            actor: "test".to_owned(),
            at: START,
        };
        let tea = Product {
            id: product,
            sku,
            name: "Tea".to_owned(),
            description: None,
            price: Money(500),
            status,
            inventory: Some(inventory),
            version: 1,
            created_at: START,
            updated_at: START,
        };
        store.insert_product(&tea, Some(&stock)).await.expect("a product");
        let (time_holder, held) = mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || held.recv());
        tokio::time::pause();
        let house = House::open(HouseParts {
            redis: None,
            broker: None,
            store: Arc::clone(&store),
            clock: clock.clone(),
            rules: ShopRules {
                currency: Currency::from_code("USD").expect("a currency"),
                tax: TaxRate::NONE,
                lifetime: LIFETIME,
                limits: LIMITS,
            },
            limits: HouseLimits {
                inventory_mailbox: 16,
                cart_mailbox: 16,
                orders_mailbox: 16,
                journal_mailbox: 16,
                journal_batch_max: 16,
                event_delay_max: Duration::ZERO,
                idle_ttl: 5 * MINUTE,
                order_pending_ttl: Some(ORDER_PENDING_TTL),
                retention: RETENTION,
                supervision: Policy::default(),
            },
            templates: Templates::new().expect("the templates"),
            mail_sender: "shop@localhost".to_owned(),
            mail_server: None,
            arbiters: Arc::new([Arbiter::current()]),
            runtime: Handle::current(),
            metrics: Metrics::new().expect("numbers"),
        });
        Self { house, store, clock, product, inventory, _folder: folder, _time_holder: time_holder }
    }

    async fn add(&self, cart: Option<&CartView>, quantity: i64) -> CartView {
        let command = Command { deadline: Instant::now() + PATIENCE, actor: "test".into(), remember: None };
        let session = cart.and_then(|cart| cart.session);
        let added = self.house.shop().add_to_cart(session, self.product, None, quantity, false, command).await;
        added.expect("there is enough")
    }

    /// Lets a second pass for whoever waits for time; then so many units must come to be held, with no time passing.
    async fn held_within_a_second(&self, held: i64) {
        tokio::time::advance(Duration::from_secs(1)).await;
        let end = Instant::now() + PATIENCE;
        while self
            .house
            .shop()
            .stock(self.inventory, Instant::now() + PATIENCE)
            .await
            .expect("stock")
            .inventory
            .balance
            .held
            != held
        {
            assert!(Instant::now() < end, "{held} units were to be held");
            tokio::task::yield_now().await;
        }
    }

    /// Writes what no actor would: each entry past all rules but the database's.
    async fn write(&self, entries: impl Iterator<Item = Entry>) {
        let works: Vec<Work> = entries.map(|entry| Work::Write(Arc::new(entry))).collect();
        let committed = self.store.commit(Uuid::now_v7(), &works).await.expect("a commit");
        assert!(committed.done.iter().all(|done| matches!(done, Done::Applied(_))), "written");
    }

    async fn expired(&self) -> Vec<i64> {
        let page = Page { after: None, limit: 100 };
        let rows = self.store.movements(self.inventory, &page).await.expect("a ledger").rows;
        rows.iter().filter(|row| row.reason == Reason::HoldExpired).map(|row| row.units).collect()
    }

    async fn close(self) {
        assert_eq!(self.house.close((Instant::now() + PATIENCE).into()).await, Unfinished::default());
        self.store.close().await;
    }
}

#[actix_rt::test]
async fn stock_is_back_within_a_second_of_the_carts_end_and_not_before() {
    let fixture = Fixture::open().await;
    fixture.add(None, 1).await;
    let changed = fixture.add(None, 2).await;
    fixture.clock.advance(10 * MINUTE);
    fixture.add(Some(&changed), 2).await;

    // One microsecond before the first one's end, then at it: the other one was renewed, and is not ended with it.
    fixture.clock.advance(5 * MINUTE - Duration::from_micros(1));
    fixture.held_within_a_second(5).await;
    fixture.clock.advance(Duration::from_micros(1));
    fixture.held_within_a_second(4).await;
    assert_eq!(fixture.expired().await, [1]);
    fixture.clock.advance(10 * MINUTE);
    fixture.held_within_a_second(0).await;
    assert_eq!(fixture.expired().await, [4, 1]);
    fixture.close().await;
}

#[actix_rt::test]
async fn a_cart_that_is_changed_again_and_again_ends_at_its_maximum_age() {
    let fixture = Fixture::open().await;
    let cart = fixture.add(None, 1).await;
    for _ in 0..5 {
        fixture.clock.advance(10 * MINUTE);
        fixture.held_within_a_second(1).await;
        let command = Command { deadline: Instant::now() + PATIENCE, actor: "test".into(), remember: None };
        // The same quantity again: a change, though nothing moves.
        let kept = fixture.house.shop().set_cart_item(cart.session, fixture.product, 1, command).await;
        kept.expect("the cart is open");
    }
    fixture.clock.advance(10 * MINUTE);
    fixture.held_within_a_second(0).await;
    assert_eq!(fixture.expired().await, [1]);
    fixture.close().await;
}

fn session_of_another() -> CartSessionId {
    CartSessionId { key: CartKey(Uuid::now_v7()), secret: [7; 16] }
}

#[actix_rt::test]
async fn carts_that_can_not_be_ended_keep_none_waiting() {
    let fixture = Fixture::open().await;
    fixture.add(None, 3).await;
    // As many as are read at a time, over before it, of stock that is not there: no entry can give that back.
    let nowhere = InventoryId(Uuid::now_v7());
    let stuck = (0..BATCH_MAX).map(|_| {
        let id = session_of_another();
        let line = Cart::fresh(id, START, LIFETIME).add(fixture.product, nowhere, 1, LIMITS).expect("within limits");
        let expires_at = START.plus(MINUTE);
        let action = SessionAction::Open { secret: id.secret, created_at: START, expires_at };
        Entry { session: Some(SessionChange { key: id.key, action }), lines: vec![line], ..Entry::default() }
    });
    fixture.write(stuck).await;
    fixture.clock.advance(15 * MINUTE);
    fixture.held_within_a_second(0).await;
    let due = fixture.store.carts_due(fixture.clock.now(), (START, CartKey(Uuid::nil())), 2 * BATCH_MAX).await;
    assert_eq!(due.expect("a read").len(), BATCH_MAX as usize, "the others are still there");
    fixture.close().await;
}

#[actix_rt::test]
async fn orders_that_can_not_be_cancelled_keep_none_waiting() {
    let fixture = Fixture::open().await;
    fixture.clock.advance(MINUTE);
    let session = fixture.add(None, 3).await.session.expect("a session");
    let buyer = Buyer { user: UserId(Uuid::now_v7()), name: "Ann".to_owned(), email: "ann@example.org".to_owned() };
    let request = CheckoutRequest { session, buyer, shipping_address: None, expected_total: None };
    let command = Command { deadline: Instant::now() + PATIENCE, actor: "test".into(), remember: None };
    let sound = fixture.house.shop().checkout(request, command).await.expect("an order").order;
    // As many as are read at a time, placed before it, of stock that is not there.
    let nowhere = InventoryId(Uuid::now_v7());
    let stuck = (0..BATCH_MAX).map(|_| {
        let lines = sound.lines.iter().map(|line| OrderedLine { inventory: nowhere, ..line.clone() }).collect();
        let (id, cart) = (OrderId(Uuid::now_v7()), session_of_another());
        let order = Order { id, cart, lines, created_at: START, updated_at: START, ..Order::clone(&sound) };
        Entry { order: Some(OrderChange::Place(Arc::new(order))), ..Entry::default() }
    });
    fixture.write(stuck).await;

    fixture.clock.advance(ORDER_PENDING_TTL + Duration::from_micros(1));
    tokio::time::advance(ORDERS_PERIOD).await;
    let end = Instant::now() + PATIENCE;
    while fixture.store.order(sound.id).await.expect("a read").expect("an order").status == OrderStatus::Pending {
        assert!(Instant::now() < end, "the sound order waits");
        tokio::task::yield_now().await;
    }
    let pending =
        fixture.store.orders_pending_since(fixture.clock.now(), (START, OrderId(Uuid::nil())), BATCH_MAX).await;
    assert_eq!(pending.expect("a read").len(), BATCH_MAX as usize, "the others are still there");
    fixture.close().await;
}
