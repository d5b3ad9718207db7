//! Carts: a session whose lines are holds on stock, with a time to live.
//!
//! The session rules the cart: expiry and state are the session's, its version grows by one with every change, and
//! whoever changes it names the version it saw. A line carries the version that opened it as its number.

use std::time::Duration;

use super::ids::{CartSessionId, InventoryId, ProductId};
use super::names;
use super::timestamp::Timestamp;

/// Where a cart session stands. Only an open one can change; the others are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CartState {
    /// Takes lines.
    Open,
    /// Became an order.
    Ordered,
    /// Emptied by its owner.
    Cleared,
    /// Its time was over.
    Expired,
}

names!(CartState { Open = "open", Ordered = "ordered", Cleared = "cleared", Expired = "expired" });
/// How a hold stands: it ends exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HoldState {
    /// The units are set aside.
    Open,
    /// They left with an order.
    Sold,
    /// The cart gave them back.
    Released,
    /// The cart's time was over.
    Expired,
}

names!(HoldState { Open = "open", Sold = "sold", Released = "released", Expired = "expired" });
/// One line: the hold on one product's stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CartLine {
    /// The session's version that opened it, and so its number within the session.
    pub number: i64,
    /// What is in the cart.
    pub product: ProductId,
    /// Whose units are set aside.
    pub inventory: InventoryId,
    /// How many.
    pub quantity: i64,
    /// How the hold stands.
    pub state: HoldState,
}

/// A cart as its owner's session has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cart {
    /// The session, secret included.
    pub id: CartSessionId,
    /// Where it stands.
    pub state: CartState,
    /// Grows by one with every change; 1 is the change that opened it.
    pub version: i64,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// Its lines, in the order they were opened. Those of an ended session have ended with it.
    pub lines: Vec<CartLine>,
}

/// How long a cart lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// From the last change.
    pub ttl: Duration,
    /// From the first change, whatever happens.
    pub max_age: Duration,
}

impl Lifetime {
    /// When a cart opened at `created_at` and changed at `now` ends by itself.
    #[must_use]
    pub fn expiry(&self, created_at: Timestamp, now: Timestamp) -> Timestamp {
        now.plus(self.ttl).min(created_at.plus(self.max_age))
    }
}

/// How much a cart may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Lines of one cart.
    pub lines: usize,
    /// Units of one cart, all lines together.
    pub units: i64,
}

/// What a change does to one line. The difference in units is what must be taken from or given back to stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineChange {
    /// A new line.
    Open(CartLine),
    /// Another quantity; the line as it was seen.
    Resize {
        /// The line before.
        seen: CartLine,
        /// Units after, 1 or more.
        quantity: i64,
    },
    /// The line ends; as it was seen.
    End(CartLine),
}

impl LineChange {
    /// Units taken from stock; below zero they are given back.
    #[must_use]
    pub fn units_taken(&self) -> i64 {
        match self {
            Self::Open(line) => line.quantity,
            Self::Resize { seen, quantity } => quantity - seen.quantity,
            Self::End(line) => -line.quantity,
        }
    }

    /// Whose stock is concerned.
    #[must_use]
    pub fn inventory(&self) -> InventoryId {
        match self {
            Self::Open(line) | Self::Resize { seen: line, .. } | Self::End(line) => line.inventory,
        }
    }
}

/// Why a cart does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CartError {
    /// The cart would have too many lines.
    #[error("a cart holds {limit} lines at most")]
    TooManyLines {
        /// The limit.
        limit: usize,
    },
    /// The cart would hold too many units.
    #[error("a cart holds {limit} units at most")]
    TooManyUnits {
        /// The limit.
        limit: i64,
    },
    /// The product is not in the cart.
    #[error("the product is not in the cart")]
    NotInCart,
}

impl Cart {
    /// A session that is to be opened by its first line.
    #[must_use]
    pub fn fresh(id: CartSessionId, now: Timestamp, lifetime: Lifetime) -> Self {
        let expires_at = lifetime.expiry(now, now);
        Self { id, state: CartState::Open, version: 0, created_at: now, expires_at, lines: Vec::new() }
    }

    /// Whether it takes changes at `now`: open, and its time not over.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.state == CartState::Open && now < self.expires_at
    }

    /// The line of a product, when it is in the cart.
    #[must_use]
    pub fn line(&self, product: ProductId) -> Option<&CartLine> {
        self.lines.iter().find(|line| line.product == product)
    }

    /// What adding `quantity` of a product does: a new line, or more on the one there is.
    ///
    /// # Errors
    /// [`CartError`] when the cart would hold more than `limits`.
    pub fn add(
        &self,
        product: ProductId,
        inventory: InventoryId,
        quantity: i64,
        limits: Limits,
    ) -> Result<LineChange, CartError> {
        let change = match self.line(product) {
            Some(seen) => LineChange::Resize { seen: *seen, quantity: seen.quantity.saturating_add(quantity) },
            None => LineChange::Open(CartLine {
                number: self.version + 1,
                product,
                inventory,
                quantity,
                state: HoldState::Open,
            }),
        };
        self.within(limits, change)
    }

    /// What setting a product's quantity does; 0 ends its line. `None` when it has that quantity already.
    ///
    /// # Errors
    /// [`CartError::NotInCart`], or that the cart would hold more than `limits`.
    pub fn set(&self, product: ProductId, quantity: i64, limits: Limits) -> Result<Option<LineChange>, CartError> {
        let seen = *self.line(product).ok_or(CartError::NotInCart)?;
        match quantity {
            0 => Ok(Some(LineChange::End(seen))),
            same if same == seen.quantity => Ok(None),
            quantity => self.within(limits, LineChange::Resize { seen, quantity }).map(Some),
        }
    }

    fn within(&self, limits: Limits, change: LineChange) -> Result<LineChange, CartError> {
        if matches!(change, LineChange::Open(_)) && self.lines.len() >= limits.lines {
            return Err(CartError::TooManyLines { limit: limits.lines });
        }
        let units: i64 = self.lines.iter().map(|line| line.quantity).sum();
        if change.units_taken() > 0 && units.saturating_add(change.units_taken()) > limits.units {
            return Err(CartError::TooManyUnits { limit: limits.units });
        }
        Ok(change)
    }

    /// The cart after a change of one line at `now`, its version one higher and its life renewed.
    #[must_use]
    pub fn changed(&self, change: Option<LineChange>, now: Timestamp, lifetime: Lifetime) -> Self {
        let mut after = self.clone();
        match change {
            None => {}
            Some(LineChange::Open(line)) => after.lines.push(line),
            Some(LineChange::Resize { seen, quantity }) => {
                for line in after.lines.iter_mut().filter(|line| line.number == seen.number) {
                    line.quantity = quantity;
                }
            }
            Some(LineChange::End(seen)) => after.lines.retain(|line| line.number != seen.number),
        }
        after.version += 1;
        after.expires_at = lifetime.expiry(self.created_at, now);
        after
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::ids::CartKey;
    use super::*;

    const LIFETIME: Lifetime = Lifetime { ttl: Duration::from_secs(900), max_age: Duration::from_secs(3600) };
    const LIMITS: Limits = Limits { lines: 3, units: 50 };

    fn cart() -> Cart {
        Cart::fresh(CartSessionId { key: CartKey(Uuid::nil()), secret: [0; 16] }, Timestamp(0), LIFETIME)
    }

    fn product(number: u128) -> (ProductId, InventoryId) {
        (ProductId(Uuid::from_u128(number)), InventoryId(Uuid::from_u128(number)))
    }

    #[test]
    fn a_change_renews_the_cart_up_to_its_maximum_age() {
        let minute = |minutes: u64| Timestamp(0).plus(Duration::from_secs(60 * minutes));
        let mut cart = cart();
        for at in [0, 10, 20, 30, 40] {
            cart = cart.changed(None, minute(at), LIFETIME);
            assert_eq!(cart.expires_at, minute(at + 15));
        }
        cart = cart.changed(None, minute(50), LIFETIME);
        assert_eq!(cart.expires_at, minute(60), "an hour after the first change, whatever happens");
        assert!(cart.is_live(Timestamp(minute(60).0 - 1)));
        assert!(!cart.is_live(minute(60)), "at its end it is over");
    }

    #[test]
    fn adding_again_adds_up_and_zero_removes() {
        let (lamp, stock) = product(1);
        let first = cart().add(lamp, stock, 2, LIMITS).expect("room");
        let cart = cart().changed(Some(first), Timestamp(1), LIFETIME);
        let second = cart.add(lamp, stock, 3, LIMITS).expect("room");
        assert_eq!(second.units_taken(), 3);
        let cart = cart.changed(Some(second), Timestamp(2), LIFETIME);
        assert_eq!(cart.lines.iter().map(|line| line.quantity).collect::<Vec<_>>(), [5]);
        assert_eq!(cart.set(lamp, 5, LIMITS), Ok(None));
        let end = cart.set(lamp, 0, LIMITS).expect("in the cart").expect("a change");
        assert_eq!(end.units_taken(), -5);
        let cart = cart.changed(Some(end), Timestamp(3), LIFETIME);
        assert!(cart.lines.is_empty());
        assert_eq!(cart.set(lamp, 1, LIMITS), Err(CartError::NotInCart));
        let again = cart.add(lamp, stock, 1, LIMITS).expect("room");
        assert!(matches!(again, LineChange::Open(line) if line.number == 4), "a number is not used twice");
    }

    proptest! {
        #[test]
        fn a_cart_never_exceeds_its_limits(steps in prop::collection::vec((0..6_u128, 0..40_i64, any::<bool>()), 1..60)) {
            let mut cart = cart();
            for (which, quantity, add) in steps {
                let (product, inventory) = product(which);
                let change = if add { cart.add(product, inventory, quantity.max(1), LIMITS).map(Some) } else { cart.set(product, quantity, LIMITS) };
                let before: i64 = cart.lines.iter().map(|line| line.quantity).sum();
                if let Ok(change) = change {
                    cart = cart.changed(change, Timestamp(1), LIFETIME);
                    let after: i64 = cart.lines.iter().map(|line| line.quantity).sum();
                    prop_assert_eq!(after - before, change.map_or(0, |change| change.units_taken()));
                    prop_assert!(after <= LIMITS.units && cart.lines.len() <= LIMITS.lines);
                    prop_assert!(cart.lines.iter().all(|line| line.quantity > 0));
                }
            }
        }
    }
}
