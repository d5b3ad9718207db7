//! What clients were told, compared with what is in the database.

use std::collections::HashMap;

use serde_json::Value;
use storekeeper::domain::cart::CartState;
use storekeeper::domain::ids::CartSessionId;
use storekeeper::persistence::SharedStore;
use storekeeper::persistence::records::KeptCart;

use crate::guest::{Cart, End, Guest, Lines, Shop};
use crate::load::Crowd;
use crate::place::{Place, Tables};
use crate::server::program;
use crate::warehouse::{Booking, Warehouse};

/// Runs `storekeeper check`, which must find nothing.
pub(crate) fn assert_books_in_order(place: &Place) {
    let check = program(place, "check", &[]).output().expect("the program runs");
    let said = String::from_utf8_lossy(&check.stdout).into_owned() + &String::from_utf8_lossy(&check.stderr);
    assert_eq!(check.status.code(), Some(0), "{said}");
    assert!(said.ends_with("rules hold.\n"), "{said}");
}

/// The database of a place, to be read beside a server or without one.
pub(crate) struct Audit<'a> {
    shop: &'a Shop,
    store: SharedStore,
    tables: Tables,
}

impl<'a> Audit<'a> {
    pub(crate) async fn open(place: &Place, shop: &'a Shop) -> Self {
        Self { shop, store: place.store().await, tables: place.tables().await }
    }

    pub(crate) async fn close(self) {
        self.store.close().await;
    }

    /// Everything that was answered is there, and what was not is there whole or not at all.
    pub(crate) async fn assert_kept(&mut self, guests: &[Guest], warehouses: &[Warehouse]) {
        for cart in guests.iter().flat_map(|guest| &guest.carts) {
            self.assert_cart(cart).await;
        }
        let written = self.references().await;
        for booking in warehouses.iter().flat_map(|warehouse| &warehouse.bookings) {
            let rows = written.get(&booking.ask.key).copied().unwrap_or_default();
            match booking.is_done() {
                Some(done) => assert_eq!(rows, i64::from(done), "{booking:?}"),
                None => assert!(rows <= 1, "{rows} rows: {booking:?}"),
            }
        }
    }

    /// Everything that was answered is there, and nothing else: what was not answered did not happen. `others` is how
    /// many carts there are beside the guests'.
    pub(crate) async fn assert_exactly(&mut self, everybody: &Crowd, others: usize) {
        let Crowd { guests, warehouses } = everybody;
        let carts: Vec<&Cart> = guests.iter().flat_map(|guest| &guest.carts).collect();
        let known: Vec<&Cart> = carts.into_iter().filter(|cart| cart.session.is_some()).collect();
        for cart in &known {
            let Cart { session, lines, end, .. } = (*cart).clone();
            self.assert_cart(&Cart { session, lines, end, open: None }).await;
        }
        let sessions = self.count("SELECT count(*) FROM cart_sessions").await;
        assert_eq!(usize::try_from(sessions), Ok(known.len() + others), "carts");
        let written = self.references().await;
        for booking in warehouses.iter().flat_map(|warehouse| &warehouse.bookings) {
            let rows = written.get(&booking.ask.key).copied().unwrap_or_default();
            assert_eq!(rows, i64::from(booking.is_done() == Some(true)), "{booking:?}");
        }
        self.assert_stock(guests, warehouses).await;
    }

    /// A cart that was shown with one unit has it, or its time is over.
    pub(crate) async fn assert_has_one(&self, shown: &Value) {
        let session = shown["cartSessionId"].as_str().map(str::to_owned);
        let lines = Lines::from([(0, 1)]);
        self.assert_cart(&Cart { session, lines, end: None, open: None }).await;
    }

    /// What is on hand is what there was at first, and came in, less what went out and was sold.
    pub(crate) async fn assert_stock(&self, guests: &[Guest], warehouses: &[Warehouse]) {
        for (number, item) in self.shop.items.iter().enumerate() {
            let booked = |booking: &&Booking| booking.item == number && booking.is_done() == Some(true);
            let bookings = warehouses.iter().flat_map(|warehouse| &warehouse.bookings).filter(booked);
            let sold = |cart: &&Cart| matches!(cart.end, Some(End::Ordered { .. }));
            let carts = guests.iter().flat_map(|guest| &guest.carts).filter(sold);
            let on_hand = item.opening + bookings.map(|booking| booking.units).sum::<i64>()
                - carts.filter_map(|cart| cart.lines.get(&number)).sum::<i64>();
            assert_eq!(self.balance(number).await.0, on_hand, "{item:?}");
        }
    }

    /// What is on hand and held of an item.
    pub(crate) async fn balance(&self, item: usize) -> (i64, i64) {
        let id = self.shop.items[item].inventory.parse().expect("an id");
        let inventory = self.store.inventory(id).await.expect("an answer").expect("an inventory");
        (inventory.balance.on_hand, inventory.balance.held)
    }

    /// How many carts are open.
    pub(crate) async fn open_carts(&mut self) -> i64 {
        self.count("SELECT count(*) FROM cart_sessions WHERE state = 'open'").await
    }

    /// How many holds ended by themselves, and how many of those before their cart's time was over.
    pub(crate) async fn expired_holds(&mut self) -> (i64, i64) {
        let all = "SELECT count(*) FROM movements WHERE reason = 'hold_expired'";
        let early = "SELECT count(*) FROM movements JOIN cart_sessions ON key = cart_key
                     WHERE reason = 'hold_expired' AND at < expires_at";
        (self.count(all).await, self.count(early).await)
    }

    async fn count(&mut self, statement: &'static str) -> i64 {
        self.tables.number(statement).await
    }

    /// How many ledger rows there are of each reference.
    async fn references(&mut self) -> HashMap<String, i64> {
        let rows = "SELECT reference, count(*) FROM movements WHERE reference IS NOT NULL GROUP BY reference";
        self.tables.counted(rows).await.into_iter().collect()
    }

    async fn assert_cart(&self, cart: &Cart) {
        let Some(session) = &cart.session else {
            return assert!(cart.open.is_some(), "only a cart that is being opened has no session: {cart:?}");
        };
        let session: CartSessionId = session.parse().expect("a session");
        let kept = self.store.cart(session.key).await.expect("an answer");
        let kept = kept.unwrap_or_else(|| panic!("the cart is not there: {cart:?}"));
        let as_answered = self.fault(&kept, &cart.lines, cart.end.as_ref()).await;
        let as_asked = match &cart.open {
            None => as_answered.clone(),
            Some(asked) => {
                let end = asked.change.end().or_else(|| cart.end.clone());
                self.fault(&kept, &asked.change.of(&cart.lines), end.as_ref()).await
            }
        };
        if let (Some(as_answered), Some(as_asked)) = (as_answered, as_asked) {
            panic!("{as_answered}; {as_asked}: the guest knows {cart:?}; in the database is {kept:?}");
        }
    }

    /// What is other in the database than it should be, if anything is.
    async fn fault(&self, kept: &KeptCart, lines: &Lines, end: Option<&End>) -> Option<String> {
        let states: &[CartState] = match end {
            None => &[CartState::Open, CartState::Expired],
            Some(End::Expired) => &[CartState::Expired],
            Some(End::Cleared) => &[CartState::Cleared, CartState::Expired],
            Some(End::Ordered { .. }) => &[CartState::Ordered],
        };
        if !states.contains(&kept.cart.state) {
            return Some(format!("its state is none of {states:?}"));
        }
        // Among those that a cleared cart has released are lines that were taken out of it before.
        if kept.cart.state != CartState::Cleared && self.lines(kept) != *lines {
            return Some(format!("it has not the lines {lines:?}"));
        }
        match end {
            Some(End::Ordered { order }) => self.order_fault(kept, lines, order.as_deref()).await,
            None | Some(End::Expired | End::Cleared) => None,
        }
    }

    async fn order_fault(&self, kept: &KeptCart, lines: &Lines, id: Option<&str>) -> Option<String> {
        let Some(order) = kept.order else { return Some("it has no order".to_owned()) };
        if id.is_some_and(|id| id != order.to_string()) {
            return Some(format!("its order is not {id:?}"));
        }
        let order = self.store.order(order).await.expect("an answer").expect("the order");
        let total: i64 = lines.iter().map(|(item, quantity)| self.shop.items[*item].cents * quantity).sum();
        let bought: i64 = order.lines.iter().map(|ordered| ordered.line.total.0).sum();
        let right = order.totals.grand_total.0 == total && bought == total;
        (!right).then(|| format!("its order does not come to {total}: {order:?}"))
    }

    fn lines(&self, kept: &KeptCart) -> Lines {
        let number = |product: &str| self.shop.items.iter().position(|item| item.product == product);
        let line = |line: &storekeeper::domain::cart::CartLine| {
            (number(&line.product.to_string()).expect("an item of the shop"), line.quantity)
        };
        kept.cart.lines.iter().map(line).collect()
    }
}
