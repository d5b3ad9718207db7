//! What a storekeeper shows to those who only look: the newest balance, less what is on its way out.
//!
//! Looking is most of a shop's traffic, and a message to an actor and back costs more than all the rest of it. So each
//! storekeeper that lives keeps a board, which says what it would say: the actor writes what it accepts, and whoever
//! learns what the database says of it, before anybody is answered: who has an answer and looks finds it there. A board
//! goes with its storekeeper. Where there is none, or it is too old, the actor is asked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use crate::domain::ids::InventoryId;
use crate::persistence::records::Inventory;

use super::command::StockView;
use super::inventory::ToldBalance;

/// The board of one life of one storekeeper.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<Written>);

#[derive(Debug, Default)]
struct Written {
    /// Units that were accepted to be taken, and whose outcome is not known.
    in_flight: i64,
    /// `None` as long as the storekeeper does not know what is true.
    stock: Option<Stock>,
}

#[derive(Debug)]
struct Stock {
    /// Its balance is the newest that is known.
    record: Inventory,
    /// The balance is at least as new as this.
    since: Instant,
}

impl Board {
    /// The storekeeper has read the database.
    pub(super) fn write(&self, record: &Inventory, since: Instant) {
        let mut written = self.written();
        match &mut written.stock {
            Some(stock) => stock.learn(ToldBalance { balance: record.balance, at: record.updated_at, since }),
            None => written.stock = Some(Stock { record: record.clone(), since }),
        }
    }

    /// Units were accepted to be taken.
    pub(super) fn take(&self, units: i64) {
        self.written().in_flight += units;
    }

    /// The outcome of takes is known, and perhaps a balance.
    pub(super) fn settle(&self, units: i64, told: Option<ToldBalance>) {
        let mut written = self.written();
        written.in_flight -= units;
        if let (Some(stock), Some(told)) = (&mut written.stock, told) {
            stock.learn(told);
        }
    }

    /// What is written may be wrong; the storekeeper reads.
    pub(super) fn wipe(&self) {
        self.written().stock = None;
    }

    /// What can be seen, unless that is older than `age_max`.
    fn view(&self, age_max: Option<Duration>) -> Option<StockView> {
        let written = self.written();
        let stock = written.stock.as_ref()?;
        if age_max.is_some_and(|age_max| stock.since.elapsed() > age_max) {
            return None;
        }
        let available = (stock.record.balance.available() - written.in_flight).max(0);
        Some(StockView { inventory: stock.record.clone(), available })
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stock {
    fn learn(&mut self, told: ToldBalance) {
        let ToldBalance { balance, at, since } = told;
        let seq = self.record.balance.seq;
        if balance.seq > seq {
            (self.record.balance, self.record.updated_at) = (balance, at);
        }
        if balance.seq >= seq {
            self.since = self.since.max(since);
        }
    }
}

/// The boards of all storekeepers that live.
#[derive(Debug, Default)]
pub struct Boards(DashMap<InventoryId, Weak<Board>>);

impl Boards {
    /// A storekeeper's new life begins.
    pub(super) fn put_up(&self, inventory: InventoryId, board: &Arc<Board>) {
        self.0.insert(inventory, Arc::downgrade(board));
    }

    /// What the inventory's board says; `None` when there is none, or it says nothing or is older than `age_max`.
    pub(super) fn look(&self, inventory: InventoryId, age_max: Option<Duration>) -> Option<StockView> {
        self.find(inventory)?.view(age_max)
    }

    /// A balance that somebody has learned.
    pub(super) fn tell(&self, inventory: InventoryId, told: ToldBalance) {
        if let Some(board) = self.find(inventory) {
            board.settle(0, Some(told));
        }
    }

    /// Forgets the boards of those who have gone.
    pub(super) fn tidy(&self) {
        self.0.retain(|_, board| board.strong_count() > 0);
    }

    fn find(&self, inventory: InventoryId) -> Option<Arc<Board>> {
        self.0.get(&inventory)?.upgrade()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::ProductId;
    use crate::domain::stock::Balance;
    use crate::domain::timestamp::Timestamp;

    fn record(on_hand: i64, held: i64, seq: i64) -> Inventory {
        Inventory {
            id: InventoryId(Uuid::from_u128(1)),
            product: ProductId(Uuid::from_u128(2)),
            sku: "TEA-1".to_owned(),
            balance: Balance { on_hand, held, seq },
            updated_at: Timestamp(seq),
        }
    }

    fn told(on_hand: i64, held: i64, seq: i64) -> ToldBalance {
        ToldBalance { balance: Balance { on_hand, held, seq }, at: Timestamp(seq), since: Instant::now() }
    }

    #[test]
    fn what_is_on_its_way_out_is_not_shown_as_available() {
        let board = Board::default();
        assert_eq!(board.view(None), None, "nothing is known");
        board.write(&record(10, 0, 1), Instant::now());
        board.take(4);
        let view = board.view(None).expect("a view");
        assert_eq!((view.available, view.inventory.balance.held), (6, 0));
        board.settle(4, Some(told(10, 4, 2)));
        let view = board.view(None).expect("a view");
        assert_eq!((view.available, view.inventory.balance.held, view.inventory.updated_at), (6, 4, Timestamp(2)));
        board.settle(0, Some(told(10, 0, 1)));
        assert_eq!(board.view(None).expect("a view").inventory.balance.seq, 2, "an older balance changes nothing");
    }

    #[test]
    fn a_board_that_was_wiped_says_nothing_and_remembers_what_is_on_its_way() {
        let board = Board::default();
        board.write(&record(10, 0, 1), Instant::now());
        board.take(4);
        board.wipe();
        assert_eq!(board.view(None), None);
        board.write(&record(10, 0, 1), Instant::now());
        assert_eq!(board.view(None).expect("a view").available, 6);
    }

    #[test]
    fn who_wants_it_new_does_not_get_it_old() {
        let board = Board::default();
        board.write(&record(10, 0, 1), Instant::now() - Duration::from_secs(1));
        assert_eq!(board.view(Some(Duration::from_millis(200))), None);
        assert!(board.view(Some(Duration::from_secs(3_600))).is_some() && board.view(None).is_some());
        board.settle(0, Some(told(10, 0, 1)));
        assert!(board.view(Some(Duration::from_secs(1))).is_some(), "the same balance, seen again just now");
    }

    #[test]
    fn a_board_goes_with_its_storekeeper() {
        let (boards, board) = (Boards::default(), Arc::new(Board::default()));
        let id = InventoryId(Uuid::from_u128(1));
        boards.put_up(id, &board);
        board.write(&record(10, 0, 1), Instant::now());
        assert!(boards.look(id, None).is_some());
        drop(board);
        assert_eq!(boards.look(id, None), None);
        boards.tidy();
        assert!(boards.0.is_empty());
    }
}
