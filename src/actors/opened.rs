//! Carts that were opened here and that nobody has asked for since: what their actors will need to know first.
//!
//! A cart's identifier is told with the answer that opens it, so until then nobody else can be at it: opening one needs
//! no actor. The first request after that does, and finds here what it would otherwise read from the database. As with
//! an actor's own memory, what is here may be old, and then the database refuses what rests on it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use crate::domain::ids::CartKey;
use crate::persistence::records::KeptCart;

/// Carts remembered at most. The actors of others read theirs from the database.
const CARTS_MAX: usize = 100_000;

struct Opened {
    cart: Box<KeptCart>,
    at: Instant,
}

/// The carts.
#[derive(Default)]
pub struct OpenedCarts {
    carts: DashMap<CartKey, Opened>,
    /// How many there are; counted apart, since asking the map takes all its locks.
    count: AtomicUsize,
}

impl OpenedCarts {
    /// Remembers a cart that was opened just now, if there is room.
    pub(super) fn keep(&self, cart: Box<KeptCart>) {
        if self.count.fetch_add(1, Ordering::Relaxed) < CARTS_MAX {
            self.carts.insert(cart.cart.id.key, Opened { cart, at: Instant::now() });
        } else {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// What its actor, which begins, is to know; it is forgotten here.
    pub(super) fn take(&self, key: CartKey) -> Option<Box<KeptCart>> {
        let (_, opened) = self.carts.remove(&key)?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(opened.cart)
    }

    /// Forgets those that nobody has asked for.
    pub(super) fn forget_older_than(&self, age: Duration) {
        self.carts.retain(|_, opened| {
            let stays = opened.at.elapsed() < age;
            if !stays {
                self.count.fetch_sub(1, Ordering::Relaxed);
            }
            stays
        });
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
    fn there_is_room_for_so_many_and_again_when_some_have_gone() {
        let opened = OpenedCarts::default();
        (0..=CARTS_MAX).for_each(|number| opened.keep(cart(number)));
        assert_eq!(opened.carts.len(), CARTS_MAX);
        opened.forget_older_than(Duration::from_secs(3600));
        assert_eq!(opened.carts.len(), CARTS_MAX);
        opened.forget_older_than(Duration::ZERO);
        assert!(opened.carts.is_empty());
        opened.keep(cart(1));
        assert_eq!(opened.carts.len(), 1);
    }
}
