//! Requests that race for one cart, one order, one line.

use std::collections::HashSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Api, Buyer, Item, Level, TestShop, cents, count, together};

/// How many do the same at the same moment.
const CROWD: usize = 20;
/// How often two race for one cart.
const ROUNDS: usize = 60;

fn of_status(answers: &[Answer], status: u16) -> Vec<&Answer> {
    answers.iter().filter(|answer| answer.status == status).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_cart_checked_out_by_a_crowd_is_one_order() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("3.00", 10).await;
    let (buyer, stranger) = (shop.buyer().await, shop.buyer().await);
    let session = shop.api.cart_with(&item, 2).await;

    let checkouts = (0..CROWD).map(|_| shop.api.checkout(&buyer, &session).send());
    let answers = together(checkouts).await;

    let placed = of_status(&answers, 201);
    assert_eq!((placed.len(), of_status(&answers, 200).len()), (1, CROWD - 1));
    assert!(answers.iter().all(|answer| answer.body == placed[0].body), "all were told of the same order");
    shop.api.checkout(&stranger, &session).send().await.expect_refusal(409, "cart_ordered");
    assert_eq!(shop.api.orders().await.len(), 1);
    assert_eq!(shop.api.level(&item).await, Level::free(8));
    assert_eq!(count(&shop.api.ledger(&item).await, "sale"), 1);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_buyers_race_for_one_cart() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("3.00", 100).await;
    let buyers = shop.buyers(2).await;
    for _ in 0..ROUNDS / 2 {
        let session = shop.api.cart_with(&item, 1).await;
        let answers = together(buyers.iter().map(|buyer| shop.api.checkout(buyer, &session).send())).await;
        assert_eq!(of_status(&answers, 201).len(), 1, "one of them bought it");
        of_status(&answers, 409)[0].clone().expect_refusal(409, "cart_ordered");
    }
    assert_eq!(shop.api.level(&item).await, Level::free(100 - ROUNDS as i64 / 2));
    shop.stop().await;
}

/// The units in an order's items or a cart's; each item's total and the sum are what they should be.
fn units(document: &Value, items: &str, sum: &str) -> i64 {
    let items = document[items].as_array().expect("items");
    let total: i64 = items.iter().map(|item| cents(&item["total"])).sum();
    assert_eq!(total, cents(&document[sum]), "{document:#}");
    let of = |item: &Value| {
        let quantity = item["quantity"].as_i64().expect("a quantity");
        assert_eq!(cents(&item["price"]) * quantity, cents(&item["total"]), "{document:#}");
        quantity
    };
    items.iter().map(of).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_addition_races_a_checkout() {
    const STOCK: i64 = 1_000;
    let shop = TestShop::open(|_| {}).await;
    let (lamp, shade) = (shop.api.item("19.99", STOCK).await, shop.api.item("0.01", STOCK).await);
    let buyer = shop.buyer().await;
    let (mut ordered, mut left) = ([0; 2], 0);
    for round in 0..ROUNDS {
        let session = shop.api.cart_with(&lamp, 2).await;
        // The same line in every other round, a new one in the rest.
        let more = [&lamp, &shade][round % 2];
        let (add, checkout) = (shop.api.add(Some(&session), more, 3), shop.api.checkout(&buyer, &session));
        let asks = if round % 4 < 2 { [add, checkout] } else { [checkout, add] };
        let answers = together(asks.map(|ask| ask.send())).await;

        let order = answers.iter().find(|answer| answer.status == 201).expect("an order");
        let added = answers.iter().find(|answer| answer.status == 200).expect("an addition");
        let bought = units(&order.body, "orderItems", "subtotal");
        if added.text("cartSessionId") == session {
            assert_eq!(bought, 5, "who was added before the checkout is in the order");
            ordered[round % 2] += 3;
        } else {
            assert_eq!(bought, 2, "who came after it is not");
            assert_eq!(units(&added.body, "items", "subtotal"), 3, "but in a cart of its own");
            left += 1;
            shop.api.clear(&added.text("cartSessionId")).send().await.expect_status(200);
        }
    }
    let rounds = ROUNDS as i64;
    assert_eq!(shop.api.level(&lamp).await, Level::free(STOCK - 2 * rounds - ordered[0]));
    assert_eq!(shop.api.level(&shade).await, Level::free(STOCK - ordered[1]));
    let released = count(&shop.api.ledger(&lamp).await, "hold_released");
    assert_eq!(released + count(&shop.api.ledger(&shade).await, "hold_released"), left);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clearing_races_a_checkout() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 500).await;
    let buyer = shop.buyer().await;
    let mut orders = 0;
    for round in 0..ROUNDS {
        let session = shop.api.cart_with(&item, 2).await;
        let (clear, checkout) = (shop.api.clear(&session), shop.api.checkout(&buyer, &session));
        let asks = if round % 2 == 0 { [clear, checkout] } else { [checkout, clear] };
        let answers = together(asks.map(|ask| ask.send())).await;

        let (cleared, checked_out) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
        assert_eq!(answers[cleared].status, 200);
        if answers[checked_out].status == 201 {
            orders += 1;
        } else {
            answers[checked_out].clone().expect_refusal(400, "cart_empty");
        }
    }
    assert_eq!(shop.api.level(&item).await, Level::free(500 - 2 * orders), "the order or the stock, never both");
    let ledger = shop.api.ledger(&item).await;
    assert_eq!(i64::try_from(count(&ledger, "sale")), Ok(orders));
    assert_eq!(count(&ledger, "sale") + count(&ledger, "hold_released"), ROUNDS);
    shop.stop().await;
}

/// Orders so many units.
async fn order(api: &Api, buyer: &Buyer, item: &Item, quantity: i64) -> String {
    let session = api.cart_with(item, quantity).await;
    api.checkout(buyer, &session).send().await.expect_status(201).text("id")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_cancelled_by_a_crowd_is_restocked_once() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 10).await;
    let buyer = shop.buyer().await;
    let order = order(&shop.api, &buyer, &item, 4).await;

    let answers = together((0..CROWD).map(|_| shop.api.cancel(&buyer, &order).send())).await;

    assert_eq!(of_status(&answers, 200).len(), 1);
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        refused.clone().expect_refusal(409, "invalid_transition");
    }
    assert_eq!(shop.api.level(&item).await, Level::free(10));
    assert_eq!(count(&shop.api.ledger(&item).await, "order_cancelled"), 1);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmation_and_a_shipping_race_a_cancellation() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 100).await;
    let buyer = shop.buyer().await;
    let mut cancelled = 0;
    for _ in 0..ROUNDS / 3 {
        let order = order(&shop.api, &buyer, &item, 1).await;
        let become_ = |status: &str| {
            let path = format!("/orders/{order}/status");
            shop.api.ask_as_admin(Method::PUT, &path).json(&json!({"status": status})).send()
        };
        let confirmed = become_("CONFIRMED").await.expect_status(200);
        assert_eq!(confirmed.text("status"), "CONFIRMED");
        let shipping = become_("SHIPPED");
        let cancelling = shop.api.cancel(&buyer, &order).send();
        let (shipped, called_off) = tokio::join!(tokio::spawn(shipping), tokio::spawn(cancelling));
        let answers = [shipped.expect("no panic"), called_off.expect("no panic")];
        assert_eq!(of_status(&answers, 200).len(), 1, "a shipped order is not cancelled, a cancelled one not shipped");
        of_status(&answers, 409)[0].clone().expect_refusal(409, "invalid_transition");
        cancelled += i64::from(answers[1].status == 200);
    }
    assert_eq!(shop.api.level(&item).await, Level::free(100 - ROUNDS as i64 / 3 + cancelled));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_replayed_by_a_crowd_releases_once() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 50).await;
    // Others hold too: what is released twice would come out of theirs, and no rule of the balance would see it.
    let others = shop.api.cart_with(&item, 20).await;

    let session = shop.api.cart_with(&item, 5).await;
    let answers = together((0..CROWD).map(|_| shop.api.remove(&session, &item).send())).await;
    assert_eq!(of_status(&answers, 200).len(), 1);
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        refused.clone().expect_refusal(404, "item_not_found");
    }
    assert_eq!(shop.api.level(&item).await, Level { quantity: 30, on_hand: 50, held: 20 });

    let session = shop.api.cart_with(&item, 5).await;
    let answers = together((0..CROWD).map(|_| shop.api.clear(&session).send())).await;
    assert_eq!(of_status(&answers, 200).len(), CROWD, "clearing what is clear is nothing");
    assert_eq!(shop.api.level(&item).await, Level { quantity: 30, on_hand: 50, held: 20 });

    assert_eq!(count(&shop.api.ledger(&item).await, "hold_released"), 2);
    shop.api.clear(&others).send().await.expect_status(200);
    assert_eq!(shop.api.level(&item).await, Level::free(50));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_a_change_and_a_clearing_race() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 50).await;
    let others = shop.api.cart_with(&item, 20).await;
    for _ in 0..ROUNDS {
        let session = shop.api.cart_with(&item, 5).await;
        let path = format!("/cart/items/{}", item.product);
        let set =
            |quantity: i64| shop.api.ask(Method::PUT, &path).cart(&session).json(&json!({"quantity": quantity})).send();
        let (more, less) = (tokio::spawn(set(9)), tokio::spawn(set(2)));
        let removed = tokio::spawn(shop.api.remove(&session, &item).send());
        let cleared = tokio::spawn(shop.api.clear(&session).send());
        for answer in [more, less, removed] {
            let answer = answer.await.expect("no panic");
            assert!(["", "item_not_found", "cart_not_found"].contains(&answer.code()), "{:#}", answer.body);
        }
        cleared.await.expect("no panic").expect_status(200);
        assert_eq!(shop.api.level(&item).await, Level { quantity: 30, on_hand: 50, held: 20 });
    }
    assert_eq!(units(&shop.api.cart(&others).await.body, "items", "subtotal"), 20);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn additions_to_one_session_add_up() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 30).await;
    let session = shop.api.cart_with(&item, 1).await;

    let answers = together((0..CROWD).map(|_| shop.api.add(Some(&session), &item, 1).send())).await;

    assert!(answers.iter().all(|answer| answer.status == 200 && answer.text("cartSessionId") == session));
    let seen: HashSet<i64> = answers.iter().map(|answer| units(&answer.body, "items", "subtotal")).collect();
    assert_eq!(seen.len(), CROWD, "each was told of a cart of its own moment");
    assert_eq!(units(&shop.api.cart(&session).await.body, "items", "subtotal"), CROWD as i64 + 1);
    assert_eq!(shop.api.level(&item).await, Level { quantity: 9, on_hand: 30, held: 21 });
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn additions_to_a_session_that_nobody_has_open_carts_of_their_own() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 30).await;
    let made_up = "0192aaaaaaaa7000800000000000000f".repeat(2);

    let answers = together((0..CROWD).map(|_| shop.api.add(Some(&made_up), &item, 1).send())).await;

    let sessions: HashSet<String> = answers.iter().map(|answer| answer.text("cartSessionId")).collect();
    assert_eq!(sessions.len(), CROWD, "a session's id is always ours, and nobody shares one by chance");
    assert!(!sessions.contains(&made_up));
    let mut held = 0;
    for session in &sessions {
        held += units(&shop.api.cart(session).await.body, "items", "subtotal");
    }
    assert_eq!(shop.api.level(&item).await, Level { quantity: 30 - held, on_hand: 30, held });
    assert_eq!(held, CROWD as i64);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_unit_goes_from_hand_to_hand() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("5.00", 1).await;
    let pass_on = |api: Api, item: Item| async move {
        let mut held = 0;
        for _ in 0..10 {
            let added = api.add(None, &item, 1).send().await;
            if added.status == 200 {
                held += 1;
                api.clear(&added.text("cartSessionId")).send().await.expect_status(200);
            } else {
                added.expect_refusal(409, "insufficient_stock");
            }
        }
        held
    };
    let held: usize = together((0..CROWD).map(|_| pass_on(shop.api.clone(), item.clone()))).await.into_iter().sum();

    assert_eq!(shop.api.level(&item).await, Level::free(1));
    let ledger = shop.api.ledger(&item).await;
    assert_eq!((count(&ledger, "hold"), count(&ledger, "hold_released")), (held, held));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_may_wait_is_refused_and_nothing_breaks() {
    let shop = TestShop::open(|config| {
        config.actors.inventory_mailbox = 8;
        config.actors.journal_mailbox = 2;
        config.actors.journal_batch_max = 1;
    })
    .await;
    let item = shop.api.item("5.00", 1_000).await;
    let mut held = 0;
    for _ in 0..3 {
        let answers = together((0..100).map(|_| shop.api.add(None, &item, 1).send())).await;
        for answer in answers {
            if answer.status == 200 {
                held += 1;
                continue;
            }
            let refused = answer.expect_refusal(503, "overloaded");
            assert_eq!(refused.body["applied"], "no");
            assert_eq!(refused.headers.get("retry-after").map(|value| value.as_bytes()), Some(&b"1"[..]));
        }
        // Who asks alone is served again, and nothing stays set aside for those who were sent away.
        assert_eq!(shop.api.level(&item).await, Level { quantity: 1_000 - held, on_hand: 1_000, held });
        shop.api.cart_with(&item, 1).await;
        held += 1;
    }
    assert_eq!(shop.api.level(&item).await.held, held);
    shop.stop().await;
}
