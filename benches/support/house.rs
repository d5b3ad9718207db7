//! The shop's actors without HTTP, on a database.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_rt::Arbiter;
use storekeeper::actors::command::{Command, CommandError};
use storekeeper::actors::house::{House, HouseLimits, HouseParts};
use storekeeper::actors::shop::{Shop, StockRequest};
use storekeeper::config::Config;
use storekeeper::domain::ids::{InventoryId, ProductId};
use storekeeper::domain::stock::{Action, Reason};
use storekeeper::messaging::mail::Templates;
use storekeeper::observability::metrics::Metrics;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::open::open;
use tokio::runtime::Runtime;

use super::{Shelves, Till, the};

/// Messages that may wait for one product, and entries for the journal: more than any bench has in flight, since
/// refusing is not what is measured.
const PLACES: u32 = 65_536;
const PATIENCE: Duration = Duration::from_secs(30);

/// The actors, which go with it.
pub(crate) struct Actors {
    pub(crate) shop: Shop,
    _house: House,
    _arbiters: Vec<Arbiter>,
}

impl Actors {
    pub(crate) async fn on(shelves: &impl Shelves, runtime: &Arc<Runtime>) -> Self {
        let mut config = Config::embedded(Path::new("unused")).expect("the defaults are usable");
        config.shop.lifetime.ttl = config.shop.lifetime.max_age;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let arbiters: Vec<Arbiter> = (0..cores).map(|_| Arbiter::with_tokio_rt(the(runtime))).collect();
        let clock = Clock::system();
        let store = open(shelves.options(), clock.clone()).await.expect("the database opens");
        let house = House::open(HouseParts {
            redis: None,
            broker: None,
            store,
            clock,
            rules: config.shop,
            limits: limits(&config),
            templates: Templates::new().expect("the texts of the mails are readable"),
            mail_sender: config.mail.sender,
            mail_server: None,
            arbiters: arbiters.iter().map(Arbiter::handle).collect(),
            runtime: runtime.handle().clone(),
            metrics: Metrics::new().expect("numbers"),
        });
        Self { shop: house.shop().clone(), _house: house, _arbiters: arbiters }
    }
}

/// What somebody asks for who waits long enough.
pub(crate) fn command<T>() -> Command<T> {
    Command { deadline: deadline(), actor: Arc::from("guest"), remember: None }
}

fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// The defaults, but that many may wait, and that carts which have their unit are put away soon: the benches make
/// millions of them.
fn limits(config: &Config) -> HouseLimits {
    HouseLimits {
        inventory_mailbox: PLACES,
        cart_mailbox: PLACES,
        orders_mailbox: PLACES,
        journal_mailbox: PLACES,
        journal_batch_max: config.actors.journal_batch_max,
        event_delay_max: config.actors.event_delay_max,
        idle_ttl: Duration::from_secs(1),
        order_pending_ttl: None,
        supervision: config.actors.supervision,
        retention: config.retention,
    }
}

/// Holds a unit for a fresh cart, as the server does.
pub(crate) struct Journal(Actors);

impl<S: Shelves> Till<S> for Journal {
    async fn open(shelves: &S, runtime: &Arc<Runtime>) -> Self {
        Self(Actors::on(shelves, runtime).await)
    }

    async fn hold(&self, product: ProductId) {
        let cart = self.0.shop.add_to_cart(None, product, None, 1, false, command()).await;
        assert_eq!(cart.expect("the unit is held").lines.len(), 1);
    }
}

/// Asks a product's actor for more than there is: it refuses from memory, and nothing is written. (Looking would not ask
/// it: what it shows is on its board.)
pub(crate) struct Asking(Actors);

impl<S: Shelves> Till<S> for Asking {
    async fn open(shelves: &S, runtime: &Arc<Runtime>) -> Self {
        Self(Actors::on(shelves, runtime).await)
    }

    async fn hold(&self, product: ProductId) {
        // Product and inventory have one number.
        let (inventory, units) = (InventoryId(product.0), i64::MAX / 4);
        let (action, reason) = (Action::Out, Reason::Adjustment);
        let request = StockRequest { inventory, action, units, reason, reference: None };
        let refused = self.0.shop.change_stock(request, command()).await;
        assert!(matches!(refused, Err(CommandError::InsufficientStock { .. })), "{refused:?}");
    }
}
