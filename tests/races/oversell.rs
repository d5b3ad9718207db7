//! More buyers than units.

use std::collections::HashSet;

use crate::support::{Api, Buyer, Item, Level, TestShop, count, together};

/// Puts one unit into a new cart and checks it out. Gives the order's id, or nothing when there was no unit left.
async fn buy_one(api: Api, buyer: Buyer, item: Item) -> Option<String> {
    let added = api.add(None, &item, 1).send().await;
    if added.status != 200 {
        let refused = added.expect_refusal(409, "insufficient_stock");
        assert_eq!(refused.body["available"], 0, "who wants one unit is refused only when there is none");
        return None;
    }
    let ordered = api.checkout(&buyer, &added.text("cartSessionId")).send().await.expect_status(201);
    assert_eq!(ordered.text("userId"), buyer.id.to_string());
    Some(ordered.text("id"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_buyers_and_a_hundred_units() {
    let shop = TestShop::open(|_| {}).await;
    let item = shop.api.item("4.50", 100).await;
    let buyers = shop.buyers(500).await;

    let bought = together(buyers.into_iter().map(|buyer| buy_one(shop.api.clone(), buyer, item.clone()))).await;

    let orders: HashSet<String> = bought.into_iter().flatten().collect();
    assert_eq!(orders.len(), 100, "each unit was sold once");
    let listed: HashSet<String> =
        shop.api.orders().await.iter().map(|order| order["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(listed, orders, "and the shop has those orders and no other");
    assert_eq!(shop.api.level(&item).await, Level::free(0));
    let ledger = shop.api.ledger(&item).await;
    assert_eq!((ledger.len(), count(&ledger, "hold"), count(&ledger, "sale")), (201, 100, 100));
    shop.stop().await;
}

/// Puts one of each into a cart, in this order, and checks out; who gets only the first one gives it back.
async fn buy_both(api: Api, buyer: Buyer, first: Item, second: Item) -> bool {
    let added = api.add(None, &first, 1).send().await;
    if added.status != 200 {
        added.expect_refusal(409, "insufficient_stock");
        return false;
    }
    let session = added.text("cartSessionId");
    let added = api.add(Some(&session), &second, 1).send().await;
    if added.status != 200 {
        added.expect_refusal(409, "insufficient_stock");
        api.clear(&session).send().await.expect_status(200);
        return false;
    }
    let ordered = api.checkout(&buyer, &session).send().await.expect_status(201);
    assert_eq!(ordered.body["orderItems"].as_array().map(Vec::len), Some(2));
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_lines_in_opposite_orders() {
    const STOCK: i64 = 40;
    let shop = TestShop::open(|_| {}).await;
    let (one, other) = (shop.api.item("1.00", STOCK).await, shop.api.item("2.00", STOCK).await);
    let buyers = shop.buyers(200).await;

    let buy = |(index, buyer): (usize, &Buyer)| {
        let (first, second) = if index % 2 == 0 { (&one, &other) } else { (&other, &one) };
        buy_both(shop.api.clone(), buyer.clone(), first.clone(), second.clone())
    };
    let bought = together(buyers.iter().enumerate().map(buy)).await;

    let sold = i64::try_from(bought.iter().filter(|bought| **bought).count()).expect("a few");
    assert!(sold <= STOCK, "{sold} sold of {STOCK}");
    for item in [&one, &other] {
        assert_eq!(shop.api.level(item).await, Level::free(STOCK - sold), "nothing is half held and nothing is lost");
        assert_eq!(i64::try_from(count(&shop.api.ledger(item).await, "sale")), Ok(sold));
    }
    // What the losers gave back can be sold to the last unit.
    if sold < STOCK {
        let session = shop.api.cart_with(&one, STOCK - sold).await;
        shop.api.add(Some(&session), &other, STOCK - sold).send().await.expect_status(200);
        shop.api.checkout(&buyers[0], &session).send().await.expect_status(201);
    }
    assert_eq!(shop.api.level(&one).await, Level::free(0));
    assert_eq!(shop.api.level(&other).await, Level::free(0));
    shop.stop().await;
}
