//! What a shop has to answer, in a few lines: one thing after the other, everything in memory, no database, no actor.

use std::fmt::Debug;
use std::time::Duration;

use storekeeper::domain::cart::CartState;
use storekeeper::domain::order::OrderStatus::{self, Cancelled, Confirmed, Delivered, Pending, Shipped};
use storekeeper::domain::timestamp::Timestamp;

pub(crate) const TTL: Duration = Duration::from_secs(900);
pub(crate) const MAX_AGE: Duration = Duration::from_secs(1_200);
pub(crate) const LINES: usize = 3;
pub(crate) const UNITS: i64 = 20;
pub(crate) const TAX_PERCENT: i64 = 19;

/// An answer: what was shown, or the refusal. Things go by their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Cart { number: usize, lines: Vec<(usize, i64)>, subtotal: i64, expires_at: Timestamp },
    Done,
    Stock { on_hand: i64, held: i64 },
    Order { number: usize, placed: bool, order: Order },
    Refused(String),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Stock {
    pub(crate) price: i64,
    pub(crate) on_hand: i64,
    pub(crate) held: i64,
    /// Rows of its ledger.
    pub(crate) rows: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct Cart {
    pub(crate) state: CartState,
    pub(crate) lines: Vec<(usize, i64)>,
    created_at: Timestamp,
    expires_at: Timestamp,
    order: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) buyer: usize,
    pub(crate) status: OrderStatus,
    pub(crate) sequence: i64,
    pub(crate) total: i64,
    /// Item, quantity, price.
    pub(crate) lines: Vec<(usize, i64, i64)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) now: Timestamp,
    pub(crate) items: Vec<Stock>,
    pub(crate) carts: Vec<Cart>,
    pub(crate) orders: Vec<Order>,
}

fn refused(why: impl ToString) -> Said {
    Said::Refused(why.to_string())
}

/// How a refusal to sell an expired cart is written here.
pub(crate) fn expired(lines: impl Debug) -> Said {
    refused(format!("expired with {lines:?}"))
}

impl Model {
    pub(crate) fn add(&mut self, cart: Option<usize>, item: usize, quantity: i64) -> Said {
        let open = cart.filter(|cart| self.carts[*cart].state == CartState::Open);
        let (created_at, expires_at) = (self.now, self.now);
        let fresh = Cart { state: CartState::Open, lines: Vec::new(), created_at, expires_at, order: None };
        let before = open.map_or(fresh, |cart| self.carts[cart].clone());
        let held = before.lines.iter().find(|line| line.0 == item).map(|line| line.1);
        if held.is_none() && before.lines.len() == LINES {
            return refused(format!("a cart holds {LINES} lines at most"));
        }
        self.put(open, before, item, held.unwrap_or(0) + quantity)
    }

    pub(crate) fn set(&mut self, cart: usize, item: usize, quantity: i64) -> Said {
        let before = self.carts[cart].clone();
        if before.state != CartState::Open {
            return refused("there is no open cart of that session");
        }
        if !before.lines.iter().any(|line| line.0 == item) {
            return refused("the product is not in the cart");
        }
        self.put(Some(cart), before, item, quantity)
    }

    fn put(&mut self, number: Option<usize>, mut cart: Cart, item: usize, quantity: i64) -> Said {
        let held = cart.lines.iter().find(|line| line.0 == item).map_or(0, |line| line.1);
        let (more, available) = (quantity - held, self.items[item].on_hand - self.items[item].held);
        if more > 0 && cart.lines.iter().map(|line| line.1).sum::<i64>() + more > UNITS {
            return refused(format!("a cart holds {UNITS} units at most"));
        }
        if more > available.max(0) {
            return refused(format!("only {available} available"));
        }
        self.items[item].held += more;
        self.items[item].rows += i64::from(more != 0);
        match cart.lines.iter_mut().find(|line| line.0 == item) {
            Some(line) => line.1 = quantity,
            None => cart.lines.push((item, quantity)),
        }
        cart.lines.retain(|line| line.1 > 0);
        cart.expires_at = self.now.plus(TTL).min(cart.created_at.plus(MAX_AGE));
        let subtotal = cart.lines.iter().map(|line| line.1 * self.items[line.0].price).sum();
        let (number, lines, expires_at) = (number.unwrap_or(self.carts.len()), cart.lines.clone(), cart.expires_at);
        match self.carts.get_mut(number) {
            Some(before) => *before = cart,
            None => self.carts.push(cart),
        }
        Said::Cart { number, lines, subtotal, expires_at }
    }

    pub(crate) fn clear(&mut self, cart: usize) -> Said {
        self.end(cart, CartState::Cleared, 0);
        Said::Done
    }

    /// Ends a cart, if it is open; of each line so many units a unit leave the house.
    fn end(&mut self, cart: usize, state: CartState, leave: i64) {
        let cart = &mut self.carts[cart];
        if cart.state == CartState::Open {
            cart.state = state;
            for (item, quantity) in &cart.lines {
                let stock = &mut self.items[*item];
                (stock.held, stock.on_hand, stock.rows) =
                    (stock.held - quantity, stock.on_hand - quantity * leave, stock.rows + 1);
            }
        }
    }

    pub(crate) fn checkout(&mut self, number: usize, buyer: usize, expected: Option<i64>) -> Said {
        let cart = self.carts[number].clone();
        match cart.order {
            Some(order) if self.orders[order].buyer == buyer => {
                return Said::Order { number: order, placed: false, order: self.orders[order].clone() };
            }
            Some(_) => return refused("the cart has become an order"),
            None => {}
        }
        if cart.state == CartState::Cleared || cart.lines.is_empty() {
            return refused("the cart is empty");
        }
        if cart.state == CartState::Expired {
            return expired(&cart.lines);
        }
        let lines: Vec<_> = cart.lines.iter().map(|line| (line.0, line.1, self.items[line.0].price)).collect();
        let subtotal: i64 = lines.iter().map(|line| line.1 * line.2).sum();
        let total = subtotal + half_even(subtotal * TAX_PERCENT, 100);
        if expected.is_some_and(|expected| expected != total) {
            return refused(format!("the total is {total}"));
        }
        self.end(number, CartState::Ordered, 1);
        let order = Order { buyer, status: Pending, sequence: 1, total, lines };
        self.orders.push(order.clone());
        self.carts[number].order = Some(self.orders.len() - 1);
        Said::Order { number: self.orders.len() - 1, placed: true, order }
    }

    pub(crate) fn transition(&mut self, number: usize, to: OrderStatus) -> Said {
        let order = &mut self.orders[number];
        let legal = [(Pending, Confirmed), (Confirmed, Shipped), (Shipped, Delivered), (Pending, Cancelled)];
        if !legal.contains(&(order.status, to)) && (order.status, to) != (Confirmed, Cancelled) {
            return refused(format!("an order that is {} can not become {to}", order.status));
        }
        (order.status, order.sequence) = (to, order.sequence + 1);
        if to == Cancelled {
            for (item, quantity, _) in &order.lines {
                self.items[*item].on_hand += quantity;
                self.items[*item].rows += 1;
            }
        }
        Said::Order { number, placed: false, order: order.clone() }
    }

    pub(crate) fn move_stock(&mut self, item: usize, units: i64) -> Said {
        let stock = &mut self.items[item];
        if -units > stock.on_hand - stock.held {
            return refused(format!("only {} available", stock.on_hand - stock.held));
        }
        (stock.on_hand, stock.rows) = (stock.on_hand + units, stock.rows + 1);
        Said::Stock { on_hand: stock.on_hand, held: stock.held }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        for cart in 0..self.carts.len() {
            if self.carts[cart].expires_at <= self.now {
                self.end(cart, CartState::Expired, 0);
            }
        }
    }
}

fn half_even(numerator: i64, denominator: i64) -> i64 {
    let (whole, rest) = (numerator / denominator, numerator % denominator * 2);
    whole + i64::from(rest > denominator || (rest == denominator && whole % 2 == 1))
}
