//! What a hold or an order leaves behind and nothing else: its rows, and what Redis shows of its cart, written for as many
//! callers at a time as wait, by one writer and one transaction after the other, that decides nothing, checks nothing and
//! tells nobody else. No shop can be this: it is what is left of the machine when the rows are to be on the disk and
//! everybody is to have an answer.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ::redis::Pipeline;
use ::redis::aio::MultiplexedConnection;
use storekeeper::domain::ids::ProductId;
use storekeeper::persistence::clock::Clock;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::UNITS;

/// Holds or orders in one transaction at most.
const BATCH_MAX: usize = 512;
/// Carts that are remembered until they are ordered.
const CARTS_MAX: usize = 100_000;
/// How long a cart lives, as those of the shop beside it do: milliseconds.
pub(crate) const LIFE_MS: i64 = 86_400_000;
/// How long it is remembered that a cart has ended: milliseconds.
const REMEMBERED_FOR_MS: u64 = 300_000;
/// Buyers, who take turns.
const BUYERS: u128 = 64;

/// A unit in a fresh cart.
pub(crate) struct Hold {
    pub(crate) product: Uuid,
    pub(crate) cart: Uuid,
    pub(crate) secret: [u8; 16],
    pub(crate) movement: Movement,
}

/// A cart that becomes an order.
pub(crate) struct Sale {
    pub(crate) hold: Hold,
    pub(crate) order: Uuid,
    pub(crate) buyer: Uuid,
    /// The unit leaves.
    pub(crate) movement: Movement,
}

/// A ledger row.
#[derive(Clone, Copy)]
pub(crate) struct Movement {
    pub(crate) id: Uuid,
    pub(crate) previous: Uuid,
    pub(crate) seq: i64,
    pub(crate) on_hand: i64,
    pub(crate) held: i64,
}

/// What a product's rows of one transaction come to.
#[derive(Clone, Copy)]
pub(crate) struct Change {
    pub(crate) product: Uuid,
    pub(crate) last: Movement,
}

/// What goes into one transaction.
pub(crate) struct Batch<T> {
    pub(crate) all: Vec<T>,
    pub(crate) changes: Vec<Change>,
    pub(crate) id: Uuid,
    /// Microseconds since 1970.
    pub(crate) at: i64,
}

/// A database.
pub(crate) trait Rows: Send + 'static {
    /// Writes all rows of holds in one transaction, synced, the batch's own row among them.
    fn hold(&mut self, batch: &Batch<Hold>) -> impl Future<Output = ()> + Send;

    /// The same of orders.
    fn sell(&mut self, batch: &Batch<Sale>) -> impl Future<Output = ()> + Send;
}

enum Wish {
    Hold(ProductId),
    Order,
}

type Told = oneshot::Sender<()>;

/// The way to the writer, which ends with it.
pub(crate) struct RowsAlone {
    queue: mpsc::UnboundedSender<(Wish, Told)>,
}

impl RowsAlone {
    pub(crate) fn new(rows: impl Rows, redis: Option<MultiplexedConnection>, runtime: &Arc<Runtime>) -> Self {
        let (queue, wishes) = mpsc::unbounded_channel();
        runtime.spawn(write(rows, wishes, redis));
        Self { queue }
    }

    /// Holds a unit for a fresh cart.
    pub(crate) async fn hold(&self, product: ProductId) {
        self.ask(Wish::Hold(product)).await;
    }

    /// Makes an order of the cart that was filled last.
    pub(crate) async fn order(&self) {
        self.ask(Wish::Order).await;
    }

    async fn ask(&self, wish: Wish) {
        let (told, done) = oneshot::channel();
        self.queue.send((wish, told)).expect("the task lives");
        done.await.expect("the rows are written");
    }
}

/// What was written last: nobody else writes to this database.
#[derive(Default)]
struct Books {
    last: HashMap<Uuid, Movement>,
    carts: VecDeque<Hold>,
}

impl Books {
    fn next(&mut self, product: Uuid, on_hand: i64, held: i64) -> Movement {
        // The first ledger row of a product has its number.
        let first = Movement { id: product, previous: product, seq: 1, on_hand: UNITS, held: 0 };
        let last = self.last.entry(product).or_insert(first);
        let (on_hand, held) = (last.on_hand + on_hand, last.held + held);
        *last = Movement { id: Uuid::now_v7(), previous: last.id, seq: last.seq + 1, on_hand, held };
        *last
    }

    fn hold(&mut self, ProductId(product): ProductId) -> Hold {
        let movement = self.next(product, 0, 1);
        Hold { product, cart: Uuid::now_v7(), secret: Uuid::new_v4().into_bytes(), movement }
    }

    fn sale(&mut self) -> Sale {
        let hold = self.carts.pop_back().expect("carts are filled before");
        let (order, movement) = (Uuid::now_v7(), self.next(hold.product, -1, -1));
        let buyer = Uuid::from_u128(u128::try_from(movement.seq).expect("a positive number") % BUYERS);
        Sale { hold, order, buyer, movement }
    }

    fn batch<T>(all: Vec<T>, row: impl Fn(&T) -> (Uuid, Movement)) -> Batch<T> {
        let mut changes: HashMap<Uuid, Change> = HashMap::new();
        for (product, last) in all.iter().map(row) {
            changes.insert(product, Change { product, last });
        }
        Batch { all, changes: changes.into_values().collect(), id: Uuid::now_v7(), at: Clock::system().now().0 }
    }
}

async fn write(
    mut rows: impl Rows,
    mut wishes: mpsc::UnboundedReceiver<(Wish, Told)>,
    redis: Option<MultiplexedConnection>,
) {
    let mut books = Books::default();
    let mut waiting = Vec::new();
    while wishes.recv_many(&mut waiting, BATCH_MAX).await > 0 {
        let (mut holds, mut sales, mut told) = (Vec::new(), Vec::new(), Vec::with_capacity(waiting.len()));
        for (wish, answer) in waiting.drain(..) {
            match wish {
                Wish::Hold(product) => holds.push(books.hold(product)),
                Wish::Order => sales.push(books.sale()),
            }
            told.push(answer);
        }
        let mut shown = ::redis::pipe();
        if !holds.is_empty() {
            let batch = Books::batch(holds, |hold| (hold.product, hold.movement));
            rows.hold(&batch).await;
            batch.all.iter().for_each(|hold| show_cart(hold, &mut shown));
            books.carts.extend(batch.all);
            let more = books.carts.len().saturating_sub(CARTS_MAX);
            books.carts.drain(..more);
        }
        if !sales.is_empty() {
            let batch = Books::batch(sales, |sale| (sale.hold.product, sale.movement));
            rows.sell(&batch).await;
            batch.all.iter().for_each(|sale| end_cart(&sale.hold, &mut shown));
        }
        // The next batch is written while this one is shown.
        tokio::spawn(show(redis.clone(), shown, told));
    }
}

fn keys(Hold { cart, secret, .. }: &Hold) -> (String, String) {
    let id = format!("{}{}", cart.simple(), Uuid::from_bytes(*secret).simple());
    (format!("cart:{id}"), format!("session:{id}"))
}

fn show_cart(hold: &Hold, redis: &mut Pipeline) {
    let (cart, session) = keys(hold);
    let line = format!(r#"{{"quantity":1,"inventoryId":"{}"}}"#, hold.product);
    redis.hset(&cart, hold.product.to_string(), line).ignore().pexpire(&cart, LIFE_MS).ignore();
    redis.pset_ex(&session, 1, LIFE_MS.unsigned_abs()).ignore();
}

fn end_cart(hold: &Hold, redis: &mut Pipeline) {
    let (cart, session) = keys(hold);
    redis.del(&[&cart, &session]).ignore().pset_ex(format!("{{{session}}}:version"), 2, REMEMBERED_FOR_MS).ignore();
}

async fn show(redis: Option<MultiplexedConnection>, shown: Pipeline, told: Vec<Told>) {
    if let Some(mut redis) = redis {
        shown.query_async::<()>(&mut redis).await.expect("Redis answers");
    }
    for answer in told {
        // Who does not wait any more is not told.
        let _ = answer.send(());
    }
}
