//! Guests and warehouses at work on one server, until it answers no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::client::Client;
use crate::guest::{Guest, Item, Shop};
use crate::server::Server;
use crate::warehouse::Warehouse;
use crate::wire::Endings;

const GUESTS: usize = 8;
const WAREHOUSES: usize = 2;
/// Prices and opening stocks; one of the items is soon sold out.
const ITEMS: [(i64, i64); 5] = [(1_999, 100_000), (1, 100_000), (250, 100_000), (75_000, 100_000), (12_345, 40)];
/// How long is waited for what must happen. It says that it never will, not how fast it should.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether it has happened.
pub(crate) const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// A generator that says everything again for the same seed.
pub(crate) fn seeded(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// Puts the items on sale.
pub(crate) async fn open_shop(server: &Server) -> Arc<Shop> {
    let client = Client::of(server);
    let token = client.sign_in().await;
    let mut items = Vec::with_capacity(ITEMS.len());
    for (cents, opening) in ITEMS {
        let (product, inventory) = client.product(&token, cents, opening).await;
        items.push(Item { product, inventory, cents, opening });
    }
    Arc::new(Shop { items, token })
}

/// Those who ask a server.
pub(crate) struct Load {
    guests: Vec<JoinHandle<Guest>>,
    warehouses: Vec<JoinHandle<Warehouse>>,
    answers: Arc<Answers>,
    endings: Arc<Endings>,
}

/// Those who asked a server, and what they know.
#[derive(Default)]
pub(crate) struct Crowd {
    pub(crate) guests: Vec<Guest>,
    pub(crate) warehouses: Vec<Warehouse>,
}

impl Crowd {
    /// Takes over what others know who asked before.
    pub(crate) fn take(&mut self, others: Self) {
        self.guests.extend(others.guests);
        self.warehouses.extend(others.warehouses);
    }
}

#[derive(Default)]
struct Answers {
    given: AtomicU64,
    more: Notify,
}

impl Load {
    /// Everybody begins.
    pub(crate) fn begin(server: &Server, shop: &Arc<Shop>, random: &mut TestRng) -> Self {
        Self::begin_at(Client::of(server), shop, random)
    }

    /// Everybody begins to ask the servers of `client`.
    pub(crate) fn begin_at(client: Client, shop: &Arc<Shop>, random: &mut TestRng) -> Self {
        let answers = Arc::new(Answers::default());
        let endings = Arc::clone(client.endings());
        let counted = || {
            let answers = Arc::clone(&answers);
            move || {
                answers.given.fetch_add(1, Ordering::Relaxed);
                answers.more.notify_one();
            }
        };
        let mut fork = || seeded(random.random::<u64>());
        let guests = (0..GUESTS).map(|_| Guest::new(Arc::clone(shop), fork()).shop(client.clone(), counted()));
        let guests = guests.map(tokio::spawn).collect();
        let warehouses =
            (0..WAREHOUSES).map(|_| Warehouse::new(Arc::clone(shop), fork()).book(client.clone(), counted()));
        let warehouses = warehouses.map(tokio::spawn).collect();
        Self { guests, warehouses, answers, endings }
    }

    /// Waits until so many answers were given.
    pub(crate) async fn answers(&self, count: u64) {
        while self.answers.given.load(Ordering::Relaxed) < count {
            let more = timeout(PATIENCE, self.answers.more.notified()).await;
            more.expect("the server answers");
        }
    }

    /// Waits until so many more answers were given.
    pub(crate) async fn more_answers(&self, count: u64) {
        self.answers(self.answers.given.load(Ordering::Relaxed) + count).await;
    }

    /// How requests ended that had no whole answer.
    pub(crate) fn endings(&self) -> Arc<Endings> {
        Arc::clone(&self.endings)
    }

    /// Waits until everybody has noticed that there are no more answers.
    pub(crate) async fn end(self) -> Crowd {
        let mut crowd = Crowd::default();
        for guest in self.guests {
            crowd.guests.push(guest.await.expect("a guest was told what they expected"));
        }
        for warehouse in self.warehouses {
            crowd.warehouses.push(warehouse.await.expect("a warehouse was told what it expected"));
        }
        crowd
    }
}
