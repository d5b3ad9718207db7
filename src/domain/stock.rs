//! Stock of one product: balances, the changes a ledger row records, and the escrow that lets many changes be in
//! flight at once.
//!
//! Escrow (after O'Neil, "The Escrow Transactional Method", 1986): what takes stock lowers what is available when
//! it is accepted; what gives stock raises it only when it is durable. So any part of what is in flight may fail,
//! in any order, and no accepted change ever rested on one that did not happen.

use super::names;

/// What is in the warehouse and how much of it is set aside, after the ledger's row number `seq`.
///
/// `0 <= held <= on_hand` always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    /// Units in the warehouse.
    pub on_hand: i64,
    /// Units of it set aside for open carts.
    pub held: i64,
    /// Number of the last ledger row, from 1; 0 before the first.
    pub seq: i64,
}

impl Balance {
    /// Units that can be sold now.
    #[must_use]
    pub fn available(&self) -> i64 {
        self.on_hand - self.held
    }

    /// The balance after one more ledger row.
    ///
    /// # Errors
    /// [`StockError`] when the change would break `0 <= held <= on_hand` or does not fit 64 bits.
    pub fn after(&self, change: Change) -> Result<Self, StockError> {
        let on_hand = self.on_hand.checked_add(change.on_hand).ok_or(StockError::Overflow)?;
        let held = self.held.checked_add(change.held).ok_or(StockError::Overflow)?;
        if held > on_hand {
            return Err(StockError::Insufficient { available: self.available() });
        }
        if held < 0 {
            return Err(StockError::NotHeld);
        }
        Ok(Self { on_hand, held, seq: self.seq + 1 })
    }
}

/// Why a change of stock is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StockError {
    /// More is asked for than can be sold now.
    #[error("only {available} available")]
    Insufficient {
        /// What can be sold now.
        available: i64,
    },
    /// More would be released or sold than is set aside.
    #[error("more would be released than is held")]
    NotHeld,
    /// The total does not fit 64 bits.
    #[error("the total would be too large")]
    Overflow,
}

/// By how much a ledger row changes a balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// Added to on hand.
    pub on_hand: i64,
    /// Added to held.
    pub held: i64,
}

impl Change {
    /// What it adds to the available units; below zero it takes.
    #[must_use]
    pub fn available(&self) -> i64 {
        self.on_hand - self.held
    }
}

/// Whether units come or go, as the API's `actionType` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Units become available.
    In,
    /// Units stop being available, or what was held leaves the house.
    Out,
}

/// Why a ledger row was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The first row of every inventory.
    Initial,
    /// Set aside for a cart.
    Hold,
    /// Given back by a cart.
    HoldReleased,
    /// Given back because the cart's time was over.
    HoldExpired,
    /// Held units left the house with an order.
    Sale,
    /// A cancelled order's units came back.
    OrderCancelled,
    /// Goods received.
    Receipt,
    /// A buyer sent goods back.
    Return,
    /// Corrected by hand.
    Adjustment,
    /// Broken or lost.
    Damage,
    /// Corrected after counting.
    Count,
}

names!(Reason {
    Initial = "initial",
    Hold = "hold",
    HoldReleased = "hold_released",
    HoldExpired = "hold_expired",
    Sale = "sale",
    OrderCancelled = "order_cancelled",
    Receipt = "receipt",
    Return = "return",
    Adjustment = "adjustment",
    Damage = "damage",
    Count = "count",
});

impl Reason {
    /// Those that an administrator or a warehouse system may give; the others are the system's own.
    pub const GIVEN: [Self; 5] = [Self::Receipt, Self::Adjustment, Self::Return, Self::Damage, Self::Count];

    /// The reason of a change by hand when none is given.
    #[must_use]
    pub fn default_for(action: Action) -> Self {
        match action {
            Action::In => Self::Receipt,
            Action::Out => Self::Adjustment,
        }
    }
}

names!(Action { In = "IN", Out = "OUT" });

/// What happens to stock in one ledger row: how many units, and in which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// In or out.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// How many units, 0 or more.
    pub units: i64,
}

impl Move {
    /// The first row of an inventory.
    #[must_use]
    pub fn initial(units: i64) -> Self {
        Self { action: Action::In, reason: Reason::Initial, units }
    }

    /// Units set aside for a cart.
    #[must_use]
    pub fn hold(units: i64) -> Self {
        Self { action: Action::Out, reason: Reason::Hold, units }
    }

    /// Units a cart gives back.
    #[must_use]
    pub fn release(units: i64) -> Self {
        Self { action: Action::In, reason: Reason::HoldReleased, units }
    }

    /// Units given back because the cart's time was over.
    #[must_use]
    pub fn expire(units: i64) -> Self {
        Self { action: Action::In, reason: Reason::HoldExpired, units }
    }

    /// Held units that leave with an order.
    #[must_use]
    pub fn sell(units: i64) -> Self {
        Self { action: Action::Out, reason: Reason::Sale, units }
    }

    /// Units of a cancelled order.
    #[must_use]
    pub fn restock(units: i64) -> Self {
        Self { action: Action::In, reason: Reason::OrderCancelled, units }
    }

    /// By how much it changes the balance.
    #[must_use]
    pub fn change(&self) -> Change {
        let units = self.units;
        match self.reason {
            Reason::Hold => Change { on_hand: 0, held: units },
            Reason::HoldReleased | Reason::HoldExpired => Change { on_hand: 0, held: -units },
            Reason::Sale => Change { on_hand: -units, held: -units },
            Reason::Initial
            | Reason::OrderCancelled
            | Reason::Receipt
            | Reason::Return
            | Reason::Adjustment
            | Reason::Damage
            | Reason::Count => match self.action {
                Action::In => Change { on_hand: units, held: 0 },
                Action::Out => Change { on_hand: -units, held: 0 },
            },
        }
    }
}

/// What one storekeeper knows: the newest balance it learned, and what it has accepted to take that is not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Escrow {
    balance: Balance,
    /// Units of accepted takes whose outcome is not known yet.
    in_flight: i64,
}

impl Escrow {
    /// Starts from a durable balance, with nothing in flight.
    #[must_use]
    pub fn new(balance: Balance) -> Self {
        Self { balance, in_flight: 0 }
    }

    /// The newest durable balance.
    #[must_use]
    pub fn balance(&self) -> Balance {
        self.balance
    }

    /// Units of accepted takes whose outcome is not known yet.
    #[must_use]
    pub fn in_flight(&self) -> i64 {
        self.in_flight
    }

    /// What may still be taken: the durable available units less the takes in flight. Can be below zero for a
    /// moment when somebody else took units that this storekeeper had counted on; then nothing may be taken.
    #[must_use]
    pub fn available(&self) -> i64 {
        self.balance.available() - self.in_flight
    }

    /// Accepts to take `units`: they are not available any more from now on. Nothing (0) can always be taken.
    ///
    /// # Errors
    /// [`StockError::Insufficient`] when so many are not available; nothing is changed then.
    pub fn take(&mut self, units: i64) -> Result<(), StockError> {
        let available = self.available();
        if units > 0 && units > available {
            return Err(StockError::Insufficient { available: available.max(0) });
        }
        self.in_flight += units;
        Ok(())
    }

    /// A take of `units` is over, with either outcome: if it happened, a balance learned before or with this says so.
    pub fn settle(&mut self, units: i64) {
        self.in_flight -= units;
        debug_assert!(self.in_flight >= 0, "settled more than was taken");
    }

    /// Learns a durable balance. An older one than the known is ignored: only a higher `seq` counts.
    pub fn learn(&mut self, balance: Balance) {
        if balance.seq > self.balance.seq {
            self.balance = balance;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        for (reason, name) in Reason::NAMES {
            assert_eq!(Reason::from_name(name), Some(reason));
            assert_eq!(reason.name(), name);
        }
    }

    #[test]
    fn a_sale_leaves_what_is_available_alone() {
        let before = Balance { on_hand: 10, held: 4, seq: 7 };
        let after = before.after(Move::sell(4).change()).expect("held units can be sold");
        assert_eq!(after, Balance { on_hand: 6, held: 0, seq: 8 });
        assert_eq!(before.available(), after.available());
    }

    #[test]
    fn totals_do_not_wrap() {
        let full = Balance { on_hand: i64::MAX, held: 0, seq: 1 };
        let more = Move { action: Action::In, reason: Reason::Receipt, units: 1 };
        assert_eq!(full.after(more.change()), Err(StockError::Overflow));
    }

    #[test]
    fn an_older_balance_is_not_learned() {
        let mut escrow = Escrow::new(Balance { on_hand: 5, held: 0, seq: 9 });
        escrow.learn(Balance { on_hand: 50, held: 0, seq: 8 });
        assert_eq!(escrow.available(), 5);
        escrow.learn(Balance { on_hand: 4, held: 0, seq: 10 });
        assert_eq!(escrow.available(), 4);
    }

    #[test]
    fn what_takes_nothing_is_taken_though_others_took_what_was_counted_on() {
        let mut escrow = Escrow::new(Balance { on_hand: 5, held: 0, seq: 9 });
        assert_eq!(escrow.take(3), Ok(()));
        escrow.learn(Balance { on_hand: 1, held: 0, seq: 10 });
        assert_eq!(escrow.available(), -2);
        assert_eq!(escrow.take(0), Ok(()));
        assert_eq!(escrow.take(1), Err(StockError::Insufficient { available: 0 }));
    }

    /// One thing that a storekeeper may be asked, or that may become of something in flight.
    #[derive(Debug, Clone)]
    enum Step {
        Take(i64),
        Give(i64),
        /// The flight at this index (modulo their number) ends: committed or failed.
        End(usize, bool),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec(
            prop_oneof![
                (1..20_i64).prop_map(Step::Take),
                (1..20_i64).prop_map(Step::Give),
                (any::<usize>(), any::<bool>()).prop_map(|(index, committed)| Step::End(index, committed)),
            ],
            1..200,
        )
    }

    proptest! {
        /// Whatever is accepted may commit or fail in any order: the database's balance never goes below zero.
        #[test]
        fn no_accepted_take_ever_lacks_its_units(opening in 0..40_i64, steps in steps()) {
            let mut durable = Balance { on_hand: opening, held: 0, seq: 1 };
            let mut escrow = Escrow::new(durable);
            let mut flights: Vec<Move> = Vec::new();
            for step in steps {
                match step {
                    Step::Take(units) => if escrow.take(units).is_ok() { flights.push(Move::hold(units)); },
                    Step::Give(units) => flights.push(Move { action: Action::In, reason: Reason::Receipt, units }),
                    Step::End(index, committed) if !flights.is_empty() => {
                        let flight = flights.swap_remove(index % flights.len());
                        if committed {
                            durable = durable.after(flight.change()).expect("an accepted change can not break a balance");
                            escrow.learn(durable);
                        }
                        if flight.reason == Reason::Hold { escrow.settle(flight.units); }
                    }
                    Step::End(..) => {}
                }
                prop_assert!(escrow.available() >= 0);
                let all_takes: i64 = flights.iter().filter(|flight| flight.reason == Reason::Hold).map(|flight| flight.units).sum();
                prop_assert_eq!(escrow.in_flight(), all_takes);
            }
            for flight in flights.drain(..) {
                if flight.reason == Reason::Hold { escrow.settle(flight.units); }
            }
            prop_assert_eq!(escrow.available(), durable.available(), "at rest the storekeeper knows what the database knows");
        }

        /// A hold ends as sold, released or expired, and each leaves the other units untouched.
        #[test]
        fn a_hold_and_its_end_balance(on_hand in 0..1000_i64, held in 0..1000_i64, units in 1..1000_i64) {
            prop_assume!(held <= on_hand);
            let before = Balance { on_hand, held, seq: 1 };
            match before.after(Move::hold(units).change()) {
                Ok(holding) => {
                    prop_assert!(units <= before.available());
                    for end in [Move::release(units), Move::expire(units)] {
                        let after = holding.after(end.change()).expect("held units can be given back");
                        prop_assert_eq!((after.on_hand, after.held), (on_hand, held));
                    }
                    let sold = holding.after(Move::sell(units).change()).expect("held units can be sold");
                    prop_assert_eq!((sold.on_hand, sold.held), (on_hand - units, held));
                }
                Err(error) => {
                    prop_assert_eq!(error, StockError::Insufficient { available: on_hand - held });
                    prop_assert!(units > before.available());
                }
            }
        }
    }
}
