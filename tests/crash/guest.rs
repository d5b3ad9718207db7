//! A guest who fills carts, changes them, clears them and buys them, and remembers what they were told.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::RngExt;
use proptest::test_runner::TestRng;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Ask, Client};

/// A product that is sold.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) product: String,
    pub(crate) inventory: String,
    /// Its price.
    pub(crate) cents: i64,
    /// What was in stock at first.
    pub(crate) opening: i64,
}

/// What there is to buy, and who buys.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) items: Vec<Item>,
    /// An access token.
    pub(crate) token: String,
}

/// Units by the item's number.
pub(crate) type Lines = BTreeMap<usize, i64>;

/// A cart as its guest knows it.
#[derive(Debug, Clone)]
pub(crate) struct Cart {
    /// Its session; not known as long as the request that opens it has no answer.
    pub(crate) session: Option<String>,
    /// What is in it by the last answer, or was when it ended.
    pub(crate) lines: Lines,
    /// How it ended, if it did.
    pub(crate) end: Option<End>,
    /// The request that has no answer.
    pub(crate) open: Option<Asked>,
}

/// How a cart ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Its guest ended it, or its time was over just before.
    Cleared,
    /// Its time was over.
    Expired,
    /// It became an order.
    Ordered {
        /// The order's id; not known as long as the checkout has no answer.
        order: Option<String>,
    },
}

/// A request about a cart.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) ask: Ask,
    pub(crate) change: Change,
}

/// What is asked of a cart.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Add { item: usize, quantity: i64 },
    Set { item: usize, quantity: i64 },
    Clear,
    Checkout,
}

impl Change {
    /// How it ends the cart, if it does.
    pub(crate) fn end(self) -> Option<End> {
        match self {
            Self::Add { .. } | Self::Set { .. } => None,
            Self::Clear => Some(End::Cleared),
            Self::Checkout => Some(End::Ordered { order: None }),
        }
    }

    /// The lines after it.
    pub(crate) fn of(self, lines: &Lines) -> Lines {
        let mut lines = lines.clone();
        match self {
            Self::Add { item, quantity } => *lines.entry(item).or_default() += quantity,
            Self::Set { item, quantity } => {
                lines.insert(item, quantity);
            }
            Self::Clear | Self::Checkout => {}
        }
        lines.retain(|_, quantity| *quantity > 0);
        lines
    }
}

/// A guest.
pub(crate) struct Guest {
    shop: Arc<Shop>,
    random: TestRng,
    /// All carts they had; the last is the one at hand.
    pub(crate) carts: Vec<Cart>,
    /// The last request that was answered with a success, and its answer.
    pub(crate) last: Option<(Ask, Answer)>,
}

impl Guest {
    pub(crate) fn new(shop: Arc<Shop>, random: TestRng) -> Self {
        Self { shop, random, carts: Vec::new(), last: None }
    }

    /// Goes on until there is no answer; `answered` is told of every one that there is.
    pub(crate) async fn shop(mut self, client: Client, answered: impl Fn()) -> Self {
        loop {
            let asked = self.draw();
            let Some(answer) = client.send(&asked.ask).await else {
                self.leave_open(asked);
                return self;
            };
            self.answered(asked, answer);
            answered();
        }
    }

    /// Asks once more what had no answer; now there must be one, and what was done is not done again.
    pub(crate) async fn ask_again(&mut self, client: &Client) {
        let (open, known) = self.carts.drain(..).partition(|cart: &Cart| cart.open.is_some());
        self.carts = known;
        let open: Vec<Cart> = open;
        for mut cart in open {
            let Some(asked) = cart.open.take() else { continue };
            // One whose opening had no answer is made known by the answer.
            if cart.session.is_some() {
                self.carts.push(cart);
            }
            let answer = client.send(&asked.ask).await.expect("the server answers");
            assert!(answer.status < 500, "{asked:?}: {answer:?}");
            self.answered(asked, answer);
        }
    }

    /// Asks the last request that was answered once more: the answer is the kept one.
    pub(crate) async fn repeat_last(&self, client: &Client) {
        if let Some((ask, first)) = &self.last {
            let again = client.expect(first.status, ask).await;
            assert!(again.replayed, "{ask:?} was answered before the crash: {first:?}; now: {again:?}");
            assert_eq!(again.body, first.body, "{ask:?}");
        }
    }

    fn at_hand(&mut self) -> Option<&mut Cart> {
        self.carts.last_mut().filter(|cart| cart.end.is_none() && cart.open.is_none())
    }

    fn draw(&mut self) -> Asked {
        let item = self.random.random_range(0..self.shop.items.len());
        let quantity = self.random.random_range(1..4);
        let change = match self.random.random_range(0..12) {
            0..6 => Change::Add { item, quantity },
            6..9 => Change::Set { item, quantity: quantity - 1 },
            9 => Change::Clear,
            _ => Change::Checkout,
        };
        let Some((session, lines)) = self.at_hand().map(|cart| (cart.session.clone(), cart.lines.clone())) else {
            return self.asked(None, Change::Add { item, quantity });
        };
        let in_cart = lines.keys().copied().nth(item % lines.len().max(1));
        let change = match (in_cart, change) {
            (None, _) => Change::Add { item, quantity },
            (Some(item), Change::Set { quantity, .. }) => Change::Set { item, quantity },
            (Some(_), change) => change,
        };
        self.asked(session.as_deref(), change)
    }

    fn asked(&self, session: Option<&str>, change: Change) -> Asked {
        let product = |item: usize| &self.shop.items[item].product;
        let ask = match change {
            Change::Add { item, quantity } => {
                let body = json!({"productId": product(item), "quantity": quantity});
                Ask::new(Method::POST, "/cart/add-to-cart", body)
            }
            Change::Set { item, quantity } => {
                Ask::new(Method::PUT, format!("/cart/items/{}", product(item)), json!({"quantity": quantity}))
            }
            Change::Clear => Ask::new(Method::DELETE, "/cart", json!({})),
            Change::Checkout => Ask::new(Method::POST, "/orders/checkout", json!({})).token(&self.shop.token),
        };
        Asked { ask: session.map_or(ask.clone(), |session| ask.cart(session)), change }
    }

    fn leave_open(&mut self, asked: Asked) {
        match self.at_hand().filter(|_| asked.ask.has_cart()) {
            Some(cart) => cart.open = Some(asked),
            None => self.carts.push(Cart { session: None, lines: Lines::new(), end: None, open: Some(asked) }),
        }
    }

    fn answered(&mut self, asked: Asked, answer: Answer) {
        if answer.is_open() {
            return self.leave_open(asked);
        }
        match (asked.change, answer.status) {
            (Change::Add { .. } | Change::Set { .. }, 200) => self.changed(&asked, &answer),
            (Change::Clear, 200) => self.ended(End::Cleared),
            (Change::Checkout, 200 | 201) => self.ended(End::Ordered { order: Some(answer.text("id")) }),
            (Change::Set { .. }, 404) if answer.is("cart_not_found") => self.ended(End::Expired),
            (Change::Checkout, 409) if answer.is("hold_expired") => self.ended(End::Expired),
            (_, 409) if answer.is("insufficient_stock") || answer.is("hold_limit") => {}
            (_, 503) => {}
            _ => panic!("{asked:?}: {answer:?}"),
        }
        if answer.status < 300 {
            self.last = Some((asked.ask, answer));
        }
    }

    fn ended(&mut self, end: End) {
        self.at_hand().expect("a cart").end = Some(end);
    }

    /// Takes over what an answer shows, which is what the cart had and the change.
    fn changed(&mut self, asked: &Asked, answer: &Answer) {
        let change = asked.change;
        let shown = self.lines(&answer.body["items"]);
        let session = answer.text("cartSessionId");
        match self.at_hand().filter(|_| asked.ask.has_cart()) {
            Some(cart) if cart.session.as_ref() == Some(&session) => {
                assert_eq!(shown, change.of(&cart.lines), "{cart:?}, {change:?}: {answer:?}");
                cart.lines = shown;
            }
            before => {
                // A cart whose time is over is followed by a new one.
                if let Some(cart) = before {
                    cart.end = Some(End::Expired);
                }
                assert_eq!(shown, change.of(&Lines::new()), "{change:?}: {answer:?}");
                self.carts.push(Cart { session: Some(session), lines: shown, end: None, open: None });
            }
        }
    }

    fn lines(&self, items: &Value) -> Lines {
        let line = |line: &Value| {
            let item = self.shop.items.iter().position(|item| line["productId"] == item.product.as_str());
            (item.expect("an item of the shop"), line["quantity"].as_i64().expect("a quantity"))
        };
        items.as_array().expect("a list").iter().map(line).collect()
    }
}
