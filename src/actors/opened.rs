//! Carts that were opened here and that nobody has asked for since: what their actors will need to know first.
//!
//! A cart's identifier is told with the answer that opens it, so until then nobody else can be at it: opening one needs
//! no actor. The first request after that does, and finds here what it would otherwise read from the database. As with
//! an actor's own memory, what is here may be old, and then the database refuses what rests on it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use crate::domain::ids::CartKey;
use crate::persistence::records::KeptCart;

/// So many carts are remembered of those that were opened last. The actors of others read theirs from the database.
const CARTS_MAX: usize = 100_000;
/// Carts that are forgotten before somebody else has a turn.
const FORGOTTEN_AT_ONCE: usize = 256;

/// The carts.
#[derive(Default)]
pub struct OpenedCarts {
    carts: DashMap<CartKey, Box<KeptCart>>,
    /// The last ones that were opened, taken or not, the oldest first.
    order: Mutex<VecDeque<(CartKey, Instant)>>,
}

impl OpenedCarts {
    /// Remembers a cart that was opened just now, and forgets the oldest one if there are too many.
    pub(super) fn keep(&self, cart: Box<KeptCart>) {
        let key = cart.cart.id.key;
        self.carts.insert(key, cart);
        let too_many = self.with_order(|order| {
            order.push_back((key, Instant::now()));
            if order.len() > CARTS_MAX { order.pop_front() } else { None }
        });
        if let Some((oldest, _)) = too_many {
            self.carts.remove(&oldest);
        }
    }

    /// What its actor, which begins, is to know; it is forgotten here.
    pub(super) fn take(&self, key: CartKey) -> Option<Box<KeptCart>> {
        self.carts.remove(&key).map(|(_, cart)| cart)
    }

    /// Forgets those that nobody has asked for.
    pub(super) fn forget_older_than(&self, age: Duration) {
        loop {
            let old: Vec<_> = self.with_order(|order| {
                let old = order.iter().take(FORGOTTEN_AT_ONCE).take_while(|(_, at)| at.elapsed() >= age).count();
                order.drain(..old).collect()
            });
            for (key, _) in &old {
                self.carts.remove(key);
            }
            if old.len() < FORGOTTEN_AT_ONCE {
                return;
            }
        }
    }

    fn with_order<T>(&self, work: impl FnOnce(&mut VecDeque<(CartKey, Instant)>) -> T) -> T {
        // Nothing in here panics halfway.
        work(&mut self.order.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::cart::{Cart, Lifetime};
    use crate::domain::ids::CartSessionId;
    use crate::domain::timestamp::Timestamp;

    fn cart(number: usize) -> Box<KeptCart> {
        let id = CartSessionId { key: CartKey(Uuid::from_u128(number as u128)), secret: [0; 16] };
        let lifetime = Lifetime { ttl: Duration::from_secs(1), max_age: Duration::from_secs(1) };
        Box::new(KeptCart { cart: Cart::fresh(id, Timestamp(0), lifetime), order: None })
    }

    #[test]
    fn a_cart_is_told_once() {
        let opened = OpenedCarts::default();
        let key = cart(1).cart.id.key;
        opened.keep(cart(1));
        assert!(opened.take(key).is_some());
        assert!(opened.take(key).is_none());
    }

    #[test]
    fn the_last_ones_are_remembered_until_they_are_old() {
        let opened = OpenedCarts::default();
        (0..CARTS_MAX + 2).for_each(|number| opened.keep(cart(number)));
        assert_eq!(
            (opened.carts.len(), opened.order.lock().map(|order| order.len()).ok()),
            (CARTS_MAX, Some(CARTS_MAX))
        );
        let key = |number| cart(number).cart.id.key;
        assert!(opened.take(key(1)).is_none(), "the oldest have gone");
        assert!(opened.take(key(2)).is_some() && opened.take(key(CARTS_MAX + 1)).is_some());
        opened.forget_older_than(Duration::from_secs(3600));
        assert_eq!(opened.carts.len(), CARTS_MAX - 2);
        opened.forget_older_than(Duration::ZERO);
        assert!(opened.carts.is_empty() && opened.order.lock().is_ok_and(|order| order.is_empty()));
        opened.keep(cart(1));
        assert!(opened.take(key(1)).is_some());
    }
}
