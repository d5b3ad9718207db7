//! Group commit on a real database: what goes into one transaction, what one bad entry does to its company, and what an
//! inventory's actor reads behind what was handed in.
//!
//! The tests hold the journal's turn, so that it is certain what has arrived when a transaction begins.

use actix::Message;
use actix_rt::Arbiter;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;
use tokio::sync::OwnedMutexGuard;

use super::*;
use crate::actors::inventories::Inventories;
use crate::actors::inventory::InventoryParts;
use crate::domain::ids::{MovementId, ProductId};
use crate::domain::money::Money;
use crate::domain::product::{Product, ProductStatus};
use crate::domain::stock::{Action, Move, Reason};
use crate::observability::metrics::Metrics;
use crate::persistence::clock::Clock;
use crate::persistence::entry::NewMovement;
use crate::persistence::records::NewInventory;
use crate::persistence::sqlite::{SqliteOptions, SqliteStore};

use crate::actors::supervision::Policy;

/// Long enough for a slow machine; no test waits for its end.
const PATIENCE: Duration = Duration::from_secs(60);
const OPENING: i64 = 100;

/// Where an entry's outcome arrives.
type Outcome = oneshot::Receiver<Result<Applied, JournalError>>;

/// Asks a journal how much waits for its next transaction.
struct HowMany(oneshot::Sender<usize>);

impl Message for HowMany {
    type Result = ();
}

impl Handler<HowMany> for JournalActor {
    type Result = ();

    fn handle(&mut self, HowMany(answer): HowMany, _: &mut Self::Context) {
        let _ = answer.send(self.queue.len());
    }
}

/// A journal, an inventory of [`OPENING`] units, and the inventory's actor.
struct Fixture {
    journal: JournalHandle,
    inventories: Inventories,
    store: SharedStore,
    inventory: InventoryId,
    first_movement: MovementId,
    folder: TempDir,
}

impl Fixture {
    async fn open() -> Self {
        Self::with_batches_of(100).await
    }

    async fn with_batches_of(batch_max: usize) -> Self {
        let (clock, folder) = (Clock::system(), tempfile::tempdir().expect("a folder"));
        let options = SqliteOptions { folder: folder.path().to_owned(), readers: 2 };
        let store: SharedStore = Arc::new(SqliteStore::open(options, clock.clone()).await.expect("a store"));
        let (inventory, first_movement) = (InventoryId(Uuid::now_v7()), MovementId(Uuid::now_v7()));
        let (product, stock) = stocked(inventory, first_movement, &clock);
        store.insert_product(&product, Some(&stock)).await.expect("a product");
        let arbiters: Arc<[_]> = Arc::new([Arbiter::current()]);
        let (policy, boards) = (Policy::default(), Arc::<Boards>::default());
        let registry = Arc::new(Registry::new(ActorKind::Inventory, policy, Arc::clone(&arbiters), 1_000));
        let parts = JournalParts {
            store: Arc::clone(&store),
            inventories: Arc::clone(&registry),
            announcer: Arc::default(),
            boards: Arc::clone(&boards),
            mirror: Mirror::off(),
            batch_max,
            committing: Arc::default(),
            telling: Arc::default(),
            pace: Arc::default(),
            faults: Faults::default(),
            metrics: JournalMetrics::new(&Metrics::new().expect("numbers")),
        };
        let journal = JournalHandle::new(Arc::new(Registry::new(ActorKind::Journal, policy, arbiters, 1_000)), parts);
        let parts = InventoryParts {
            store: Arc::clone(&store),
            journal: journal.clone(),
            registry,
            boards,
            faults: Faults::default(),
        };
        Self { journal, inventories: Inventories::new(parts), store, inventory, first_movement, folder }
    }

    /// Keeps the journal from beginning a transaction.
    async fn hold(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.journal.parts.committing).lock_owned().await
    }

    /// A movement of stock under an identifier.
    fn movement(&self, id: MovementId, units: i64) -> Entry {
        let (action, reason) = match units {
            0.. => (Action::In, Reason::Receipt),
            _ => (Action::Out, Reason::Adjustment),
        };
        let movement = NewMovement {
            id,
            inventory: self.inventory,
            stock_move: Move { action, reason, units: units.abs() },
            cart: None,
            order: None,
            reference: None,
            actor: "test".into(),
        };
        Entry { movements: vec![movement], ..Entry::default() }
    }

    fn submit(&self, id: MovementId, units: i64, deadline: Instant) -> Outcome {
        let (answer, outcome) = oneshot::channel();
        let work = Work::Write(Arc::new(self.movement(id, units)));
        self.journal.submit(Submission {
            work,
            take: None,
            message: None,
            deadline,
            span: Span::none(),
            answer: Answer::Entry(answer),
        });
        outcome
    }

    fn receive(&self, units: i64) -> Outcome {
        self.submit(MovementId(Uuid::now_v7()), units, Instant::now() + PATIENCE)
    }

    /// How much waits for the next transaction, when all that was submitted has arrived.
    async fn waiting(&self) -> usize {
        let (answer, waiting) = oneshot::channel();
        let (mailbox, _) = self.journal.residence.find(()).expect("a journal");
        mailbox.tell(HowMany(answer));
        waiting.await.expect("the journal lives")
    }

    /// Waits until so much waits for the next transaction.
    async fn until_waiting(&self, count: usize) {
        let end = Instant::now() + PATIENCE;
        while self.waiting().await < count {
            assert!(Instant::now() < end, "{count} were to wait");
            tokio::task::yield_now().await;
        }
    }

    async fn batches(&self) -> i64 {
        let file = self.folder.path().join("storekeeper.sqlite");
        let mut connection =
            SqliteConnectOptions::new().filename(file).read_only(true).connect().await.expect("a connection");
        let count = "SELECT count(*) FROM journal_batches";
        let batches = sqlx::query_scalar(count).fetch_one(&mut connection).await.expect("a number");
        connection.close().await.expect("closed");
        batches
    }

    async fn on_hand(&self) -> i64 {
        self.store.inventory(self.inventory).await.expect("an answer").expect("the inventory").balance.on_hand
    }

    async fn close(self) {
        let broken: i64 = self.store.check().await.expect("the books").iter().map(|verdict| verdict.broken_count).sum();
        assert_eq!(broken, 0, "the books are in order");
        self.store.close().await;
    }
}

fn stocked(inventory: InventoryId, movement: MovementId, clock: &Clock) -> (Product, NewInventory) {
    let (id, sku, at) = (ProductId(Uuid::now_v7()), "TEA-1".to_owned(), clock.now());
    let stock = NewInventory {
        id: inventory,
        product: id,
        sku: sku.clone(),
        quantity: OPENING,
        movement,
        actor: "test".to_owned(),
        at,
    };
    let product = Product {
        id,
        sku,
        name: "Tea".to_owned(),
        description: None,
        price: Money(500),
        status: ProductStatus::Published,
        inventory: Some(inventory),
        version: 1,
        created_at: at,
        updated_at: at,
    };
    (product, stock)
}

async fn applied(outcome: Outcome) -> Applied {
    outcome.await.expect("an answer").expect("written")
}

#[actix_rt::test]
async fn what_arrives_while_a_transaction_runs_goes_into_the_next_one() {
    let fixture = Fixture::open().await;
    let turn = fixture.hold().await;
    let first = fixture.receive(1);
    assert_eq!(fixture.waiting().await, 0, "an entry that comes alone is begun at once");
    let others: Vec<Outcome> = (0..50).map(|_| fixture.receive(1)).collect();
    assert_eq!(fixture.waiting().await, 50);
    drop(turn);
    applied(first).await;
    for (other, before) in others.into_iter().zip(OPENING + 1..) {
        assert_eq!(applied(other).await.balances[0].on_hand, before + 1, "in the order they were handed in");
    }
    assert_eq!(fixture.batches().await, 2);
    fixture.close().await;
}

#[actix_rt::test]
async fn a_transaction_takes_as_many_as_it_may() {
    let fixture = Fixture::with_batches_of(4).await;
    let turn = fixture.hold().await;
    let outcomes: Vec<Outcome> = (0..10).map(|_| fixture.receive(1)).collect();
    assert_eq!(fixture.waiting().await, 9, "the first is on its way");
    drop(turn);
    for outcome in outcomes {
        applied(outcome).await;
    }
    assert_eq!(fixture.batches().await, 1 + 3, "one, then four, four and one");
    fixture.close().await;
}

#[actix_rt::test]
async fn an_entry_that_the_database_refuses_harms_nobody_else() {
    let fixture = Fixture::open().await;
    let turn = fixture.hold().await;
    let first = fixture.receive(1);
    let good: Vec<Outcome> = (0..3).map(|_| fixture.receive(10)).collect();
    let bad = fixture.submit(fixture.first_movement, 1_000, Instant::now() + PATIENCE);
    let more: Vec<Outcome> = (0..4).map(|_| fixture.receive(10)).collect();
    assert_eq!(fixture.waiting().await, 8);
    drop(turn);
    applied(first).await;
    for outcome in good.into_iter().chain(more) {
        applied(outcome).await;
    }
    let refused = bad.await.expect("an answer");
    let rule = "movements_pkey".to_owned();
    assert!(
        matches!(&refused, Err(JournalError::Refused(Refusal::Rule { rule: named })) if *named == rule),
        "{refused:?}"
    );
    assert_eq!(fixture.on_hand().await, OPENING + 1 + 7 * 10);
    fixture.close().await;
}

#[actix_rt::test]
async fn what_does_not_fit_is_refused_within_its_batch() {
    let fixture = Fixture::open().await;
    let turn = fixture.hold().await;
    let first = fixture.receive(1);
    let (receipt, too_much, enough) = (fixture.receive(500), fixture.receive(-300), fixture.receive(-60));
    assert_eq!(fixture.waiting().await, 3);
    drop(turn);
    applied(first).await;
    applied(enough).await;
    applied(receipt).await;
    let refused = too_much.await.expect("an answer");
    let expected = Refusal::InsufficientStock { inventory: fixture.inventory, available: OPENING + 1 };
    assert!(
        matches!(&refused, Err(JournalError::Refused(refusal)) if *refusal == expected),
        "what comes in with it does not count: {refused:?}"
    );
    assert_eq!(fixture.batches().await, 2, "one transaction was enough for all three");
    fixture.close().await;
}

#[actix_rt::test]
async fn an_entry_whose_deadline_has_passed_is_not_begun() {
    let fixture = Fixture::open().await;
    let turn = fixture.hold().await;
    let first = fixture.receive(1);
    let deadline = Instant::now() + Duration::from_millis(200);
    let late = fixture.submit(MovementId(Uuid::now_v7()), 1_000, deadline);
    let in_time = fixture.receive(10);
    assert_eq!(fixture.waiting().await, 2);
    tokio::time::sleep_until(deadline.into()).await;
    drop(turn);
    applied(first).await;
    applied(in_time).await;
    let late = late.await.expect("an answer");
    assert!(matches!(late, Err(JournalError::Late)), "{late:?}");
    assert_eq!(fixture.on_hand().await, OPENING + 11);
    fixture.close().await;
}

#[actix_rt::test]
async fn an_inventory_is_loaded_behind_what_was_handed_in_before() {
    let fixture = Fixture::open().await;
    let turn = fixture.hold().await;
    let first = fixture.receive(1);
    let earlier = fixture.receive(20);
    assert_eq!(fixture.waiting().await, 1);
    // Its actor is started now, and asks the journal behind the receipt.
    let inventories = fixture.inventories.clone();
    let (inventory, deadline) = (fixture.inventory, Instant::now() + PATIENCE);
    let all = fixture.movement(MovementId(Uuid::now_v7()), -(OPENING + 21));
    let taken = actix_rt::spawn(async move { inventories.change(inventory, all, OPENING + 21, deadline).await });
    fixture.until_waiting(2).await;
    drop(turn);
    applied(first).await;
    applied(earlier).await;
    let taken = taken.await.expect("no panic").expect("the actor knows of all the units");
    assert_eq!(taken.balances[0].on_hand, 0);
    fixture.close().await;
}

#[actix_rt::test]
async fn what_an_actor_has_promised_stays_promised_when_it_loads_again() {
    let fixture = Fixture::open().await;
    assert_eq!(
        fixture.inventories.read(fixture.inventory, Instant::now() + PATIENCE).await.expect("stock").available,
        OPENING
    );
    let turn = fixture.hold().await;
    let first = fixture.receive(1);
    let take = |units: i64| {
        let (inventories, inventory) = (fixture.inventories.clone(), fixture.inventory);
        let (entry, deadline) = (fixture.movement(MovementId(Uuid::now_v7()), -units), Instant::now() + PATIENCE);
        actix_rt::spawn(async move { inventories.change(inventory, entry, units, deadline).await })
    };
    let promised = take(60);
    fixture.until_waiting(1).await;
    let (mailbox, _) = fixture.inventories.registry().find(fixture.inventory).expect("the actor lives");
    mailbox.tell(crate::actors::inventory::Reload);
    let too_much = take(OPENING);
    drop(turn);
    applied(first).await;
    assert_eq!(promised.await.expect("no panic").expect("promised").balances[0].on_hand, OPENING + 1 - 60);
    let refused = too_much.await.expect("no panic");
    let expected = Refusal::InsufficientStock { inventory: fixture.inventory, available: OPENING + 1 - 60 };
    assert!(matches!(&refused, Err(JournalError::Refused(refusal)) if *refusal == expected), "{refused:?}");
    fixture.close().await;
}

#[actix_rt::test]
async fn a_crowd_at_one_product_costs_another_ones_buyer_a_batch_and_not_the_queue() {
    const CROWD: usize = 450;
    let fixture = Fixture::open().await;
    let other = InventoryId(Uuid::now_v7());
    let (product, stock) = stocked(other, MovementId(Uuid::now_v7()), &Clock::system());
    fixture
        .store
        .insert_product(&Product { sku: "CUP-1".to_owned(), ..product }, Some(&stock))
        .await
        .expect("a product");
    let turn = fixture.hold().await;
    let first = fixture.receive(1);
    let crowd: Vec<Outcome> = (0..CROWD).map(|_| fixture.receive(1)).collect();
    let (answer, last) = oneshot::channel();
    let mut entry = fixture.movement(MovementId(Uuid::now_v7()), 1);
    entry.movements[0].inventory = other;
    let (work, deadline) = (Work::Write(Arc::new(entry)), Instant::now() + PATIENCE);
    fixture.journal.submit(Submission {
        work,
        take: None,
        message: None,
        deadline,
        span: Span::none(),
        answer: Answer::Entry(answer),
    });
    fixture.until_waiting(CROWD + 1).await;
    drop(turn);
    applied(first).await;
    let last = applied(last).await.at;
    let mut before = 0;
    for outcome in crowd {
        before += usize::from(applied(outcome).await.at <= last);
    }
    // A batch is 100: the buyer who came last of all is in the first one behind that under way.
    assert_eq!(before, 99, "of {CROWD} who had come before");
    fixture.close().await;
}

#[actix_rt::test]
async fn units_that_the_journal_did_not_take_are_there_for_the_next_at_once() {
    let fixture = Fixture::open().await;
    fixture.inventories.read(fixture.inventory, Instant::now() + PATIENCE).await.expect("stock");
    // Ten seconds an entry: whoever has less than twenty, behind one who waits, would be late.
    fixture.journal.parts.pace.learn(1_000, Duration::from_secs(10_000));
    let turn = fixture.hold().await;
    let first = fixture.receive(1);
    let all = |deadline| {
        let (inventories, inventory) = (fixture.inventories.clone(), fixture.inventory);
        let entry = fixture.movement(MovementId(Uuid::now_v7()), -OPENING);
        actix_rt::spawn(async move { inventories.change(inventory, entry, OPENING, deadline).await })
    };
    let refused: Vec<_> = (0..3).map(|_| all(Instant::now() + Duration::from_secs(5))).collect();
    for refused in refused {
        let refused = refused.await.expect("no panic");
        assert!(matches!(refused, Err(JournalError::Unposted(Unposted::Full))), "not sold out: {refused:?}");
    }
    let patient = all(Instant::now() + Duration::from_secs(3_600));
    fixture.until_waiting(1).await;
    drop(turn);
    applied(first).await;
    assert_eq!(patient.await.expect("no panic").expect("all of it").balances[0].on_hand, 1);
    fixture.close().await;
}
