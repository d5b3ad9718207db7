//! Another node at the same carts: it writes entries of its own into the same journal, so what this node's actors
//! remember is not what is there. Whoever comes second finds that out, and nothing is done on top of what has changed.

use std::sync::Arc;
use std::time::Duration;

use storekeeper::domain::cart::{Cart, CartState, HoldState, Lifetime, Limits, LineChange};
use storekeeper::domain::ids::{CartSessionId, MovementId};
use storekeeper::domain::stock::Move;
use storekeeper::persistence::SharedStore;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::entry::{Done, Entry, NewMovement, Refusal, SessionAction, SessionChange, Work};
use uuid::Uuid;

use crate::support::{Item, Level, TestShop, count};

const LIFETIME: Lifetime = Lifetime { ttl: Duration::from_secs(900), max_age: Duration::from_secs(3_600) };
const LIMITS: Limits = Limits { lines: 100, units: 10_000 };
const ROUNDS: usize = 40;

/// The other node's view of the shop.
#[derive(Clone)]
struct OtherNode {
    store: SharedStore,
    clock: Clock,
}

impl OtherNode {
    fn of(shop: &TestShop) -> Self {
        Self { store: Arc::clone(shop.app.store()), clock: shop.clock().clone() }
    }

    /// A cart as it stands now.
    async fn see(&self, session: &str) -> Cart {
        let id: CartSessionId = session.parse().expect("a session");
        self.store.cart(id.key).await.expect("the store answers").expect("a cart").cart
    }

    /// Adds to the cart as it was seen.
    async fn add(&self, seen: &Cart, item: &Item, quantity: i64) -> Done {
        let (product, inventory) = (item.product.parse().expect("an id"), item.inventory.parse().expect("an id"));
        let line = seen.add(product, inventory, quantity, LIMITS).expect("within limits");
        let expires_at = LIFETIME.expiry(seen.created_at, self.clock.now());
        let action = SessionAction::Touch { seen: seen.version, expires_at };
        self.write(seen, action, vec![line], HoldState::Released, Move::hold).await
    }

    /// Clears the cart as it was seen.
    async fn clear(&self, seen: &Cart) -> Done {
        let action = SessionAction::End { seen: seen.version, state: CartState::Cleared };
        let lines = seen.lines.iter().map(|line| LineChange::End(*line)).collect();
        self.write(seen, action, lines, HoldState::Released, Move::release).await
    }

    async fn write(
        &self,
        cart: &Cart,
        action: SessionAction,
        lines: Vec<LineChange>,
        end: HoldState,
        stock_move: fn(i64) -> Move,
    ) -> Done {
        let movement = |line: &LineChange| NewMovement {
            id: MovementId(Uuid::now_v7()),
            inventory: line.inventory(),
            stock_move: stock_move(line.units_taken().abs()),
            cart: Some(cart.id.key),
            order: None,
            reference: None,
            actor: "another node".into(),
        };
        let entry = Entry {
            session: Some(SessionChange { key: cart.id.key, action }),
            movements: lines.iter().map(movement).collect(),
            lines,
            line_end: Some(end),
            ..Entry::default()
        };
        let committed = self.store.commit(Uuid::now_v7(), &[Work::Write(Arc::new(entry))]).await;
        committed.expect("a commit").done.pop().expect("an answer")
    }
}

fn is_applied(done: &Done) -> bool {
    matches!(done, Done::Applied(_))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_node_saw_too_early_is_refused() {
    let shop = TestShop::open(|_| {}).await;
    let (lamp, shade) = (shop.api.item("5.00", 10).await, shop.api.item("1.00", 10).await);
    let other = OtherNode::of(&shop);
    let session = shop.api.cart_with(&lamp, 2).await;
    let seen = other.see(&session).await;
    shop.api.add(Some(&session), &shade, 1).send().await.expect_status(200);

    // Without the version it saw, this would end the cart and leave the new line held by nobody.
    assert_eq!(other.clear(&seen).await, Done::Refused(Refusal::SessionChanged));
    assert_eq!(other.add(&seen, &lamp, 3).await, Done::Refused(Refusal::SessionChanged));
    shop.api.checkout(&shop.buyer().await, &session).send().await.expect_status(201);
    assert_eq!(other.clear(&other.see(&session).await).await, Done::Refused(Refusal::AlreadyOrdered));
    assert_eq!((shop.api.level(&lamp).await, shop.api.level(&shade).await), (Level::free(8), Level::free(9)));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_this_node_remembers_of_a_cart_is_not_sold() {
    let shop = TestShop::open(|_| {}).await;
    let (lamp, shade) = (shop.api.item("5.00", 100).await, shop.api.item("1.00", 100).await);
    let other = OtherNode::of(&shop);
    let buyer = shop.buyer().await;

    let session = shop.api.cart_with(&lamp, 2).await;
    assert!(is_applied(&other.add(&other.see(&session).await, &shade, 4).await));
    let ordered = shop.api.checkout(&buyer, &session).send().await.expect_status(201);
    assert_eq!(ordered.body["orderItems"].as_array().map(Vec::len), Some(2), "what the other node added is bought");

    let session = shop.api.cart_with(&lamp, 2).await;
    assert!(is_applied(&other.clear(&other.see(&session).await).await));
    shop.api.checkout(&buyer, &session).send().await.expect_refusal(400, "cart_empty");
    let added = shop.api.add(Some(&session), &lamp, 1).send().await.expect_status(200);
    assert_ne!(added.text("cartSessionId"), session);

    let session = shop.api.cart_with(&lamp, 2).await;
    assert!(is_applied(&other.add(&other.see(&session).await, &lamp, 4).await));
    let removed = shop.api.remove(&session, &lamp).send().await.expect_status(200);
    assert_eq!(removed.body["items"].as_array().map(Vec::len), Some(0), "all of it, not what this node knew of");

    assert_eq!(shop.api.level(&lamp).await, Level { quantity: 97, on_hand: 98, held: 1 });
    assert_eq!(shop.api.level(&shade).await, Level::free(96));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_that_another_node_took_is_not_sold() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 5).await;
    let other = OtherNode::of(&shop);
    let session = shop.api.cart_with(&item, 1).await;
    // This node's storekeeper believes in the four units that the other one takes.
    assert!(is_applied(&other.add(&other.see(&session).await, &item, 4).await));
    let refused = shop.api.add(None, &item, 1).send().await.expect_refusal(409, "insufficient_stock");
    assert_eq!(refused.body["available"], 0);
    let refused = shop.api.move_stock(&item, "OUT", 1).send().await.expect_refusal(409, "insufficient_stock");
    assert_eq!(refused.body["available"], 0);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_race_for_one_cart() {
    let shop = TestShop::open(|_| {}).await;
    let (lamp, shade) = (shop.api.item("5.00", 1_000).await, shop.api.item("1.00", 1_000).await);
    let other = OtherNode::of(&shop);
    let buyer = shop.buyer().await;
    let (mut sold, mut left) = ([0; 2], Vec::new());
    for round in 0..ROUNDS {
        let session = shop.api.cart_with(&lamp, 2).await;
        let elsewhere = tokio::spawn({
            let (other, session, shade) = (other.clone(), session.clone(), shade.clone());
            async move {
                let seen = other.see(&session).await;
                let done = if round % 2 == 0 { other.clear(&seen).await } else { other.add(&seen, &shade, 3).await };
                is_applied(&done)
            }
        });
        let added = tokio::spawn(shop.api.add(Some(&session), &shade, 1).send());
        let bought = tokio::spawn(shop.api.checkout(&buyer, &session).send());
        let changed = elsewhere.await.expect("no panic");
        let added = added.await.expect("no panic").expect_status(200);
        let bought = bought.await.expect("no panic");
        if added.text("cartSessionId") != session {
            left.push(added.text("cartSessionId"));
        }
        if bought.status == 201 {
            let of = |item: &Item| {
                let items = bought.body["orderItems"].as_array().expect("items");
                let line = items.iter().find(|line| line["productId"] == item.product.as_str());
                line.map_or(0, |line| line["quantity"].as_i64().expect("a quantity"))
            };
            let in_order = i64::from(added.text("cartSessionId") == session) + if changed { 3 } else { 0 };
            assert!(!(changed && round % 2 == 0), "a cart that was cleared is not sold");
            assert_eq!(
                (of(&lamp), of(&shade)),
                (2, in_order),
                "all that was put in before it was sold is in the order"
            );
            sold = [sold[0] + 2, sold[1] + in_order];
        } else {
            bought.expect_refusal(400, "cart_empty");
            assert!(changed && round % 2 == 0, "only who cleared it could have kept it from being sold");
        }
    }
    for session in &left {
        shop.api.clear(session).send().await.expect_status(200);
    }
    assert_eq!(shop.api.level(&lamp).await, Level::free(1_000 - sold[0]));
    assert_eq!(shop.api.level(&shade).await, Level::free(1_000 - sold[1]));
    assert_eq!(i64::try_from(count(&shop.api.ledger(&lamp).await, "sale")), Ok(sold[0] / 2));
    shop.stop().await;
}
