//! The end of carts on a clock that stands still, with the runtime's time paused: a second passes when the test says so.

use std::sync::mpsc;

use actix_rt::Arbiter;
use tempfile::TempDir;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::*;
use crate::actors::command::CartView;
use crate::actors::house::{House, HouseLimits, HouseParts, Unfinished};
use crate::actors::shop::ShopRules;
use crate::actors::supervision::Policy;
use crate::domain::cart::{Lifetime, Limits};
use crate::domain::ids::{InventoryId, MovementId, ProductId};
use crate::domain::money::{Currency, Money, TaxRate};
use crate::domain::product::{Product, ProductStatus};
use crate::domain::stock::Reason;
use crate::messaging::mail::Templates;
use crate::persistence::records::{NewInventory, Page};
use crate::persistence::sqlite::{SqliteOptions, SqliteStore};

const START: Timestamp = Timestamp(1_795_339_800_000_000);
const MINUTE: Duration = Duration::from_secs(60);
const LIFETIME: Lifetime = Lifetime { ttl: Duration::from_secs(900), max_age: Duration::from_secs(3_600) };
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
                limits: Limits { lines: 10, units: 100 },
            },
            limits: HouseLimits {
                inventory_mailbox: 16,
                cart_mailbox: 16,
                orders_mailbox: 16,
                journal_mailbox: 16,
                journal_batch_max: 16,
                idle_ttl: 5 * MINUTE,
                order_pending_ttl: None,
                supervision: Policy::default(),
            },
            templates: Templates::new().expect("the templates"),
            mail_sender: "shop@localhost".to_owned(),
            mail_server: None,
            arbiters: Arc::new([Arbiter::current()]),
            runtime: Handle::current(),
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
