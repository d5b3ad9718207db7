//! A warehouse that books goods in and out, each booking under a name of its own.

use std::sync::Arc;

use proptest::prelude::RngExt;
use proptest::test_runner::TestRng;
use reqwest::Method;
use serde_json::json;

use crate::client::{Answer, Ask, Client};
use crate::guest::Shop;

/// A booking, and what became of it as far as the warehouse was told.
#[derive(Debug, Clone)]
pub(crate) struct Booking {
    pub(crate) item: usize,
    /// Units in; below zero, out.
    pub(crate) units: i64,
    pub(crate) ask: Ask,
    pub(crate) answer: Option<Answer>,
}

impl Booking {
    /// Whether it was done. What was not answered may have been.
    pub(crate) fn is_done(&self) -> Option<bool> {
        self.answer.as_ref().map(|answer| answer.status == 200)
    }
}

/// The warehouse. What it books it also writes into the ledger as the reference: the request's name.
pub(crate) struct Warehouse {
    shop: Arc<Shop>,
    random: TestRng,
    pub(crate) bookings: Vec<Booking>,
}

impl Warehouse {
    pub(crate) fn new(shop: Arc<Shop>, random: TestRng) -> Self {
        Self { shop, random, bookings: Vec::new() }
    }

    /// Goes on until there is no answer; `answered` is told of every one that there is.
    pub(crate) async fn book(mut self, client: Client, answered: impl Fn()) -> Self {
        loop {
            let mut booking = self.draw();
            booking.answer = client.send(&booking.ask).await.inspect(|answer| assert_expected(answer));
            let is_answered = booking.answer.is_some();
            booking.answer = booking.answer.filter(|answer| !answer.is_open());
            self.bookings.push(booking);
            if !is_answered {
                return self;
            }
            answered();
        }
    }

    /// Books everything once more: what was done before is not done again, and says so.
    pub(crate) async fn book_again(&mut self, client: &Client) {
        for booking in &mut self.bookings {
            let answer = client.send(&booking.ask).await.expect("the server answers");
            assert!(answer.status < 500, "{booking:?}: {answer:?}");
            assert_expected(&answer);
            if let Some(first) = booking.answer.as_ref().filter(|first| first.status == 200) {
                assert!(answer.replayed, "{booking:?}: {answer:?}");
                assert_eq!(answer.body, first.body, "{booking:?}");
            }
            booking.answer = Some(answer);
        }
    }

    fn draw(&mut self) -> Booking {
        let item = self.random.random_range(0..self.shop.items.len());
        let units: i64 = match self.random.random_range(1..=5) {
            units if self.random.random() => units,
            units => -units,
        };
        let action = if units > 0 { "IN" } else { "OUT" };
        let path = format!("/inventories/{}", self.shop.items[item].inventory);
        let mut ask = Ask::new(Method::PUT, path, json!({})).token(&self.shop.token);
        ask.body = json!({"actionType": action, "quantity": units.abs(), "reference": ask.key});
        Booking { item, units, ask, answer: None }
    }
}

fn assert_expected(answer: &Answer) {
    let refused = answer.status == 409 && answer.is("insufficient_stock");
    assert!(answer.status == 200 || refused || answer.status == 503, "{answer:?}");
}
