//! `/inventories`.

use serde_json::{Value, json};

use crate::app::{TestApp, is_time, members};

const DOCUMENT: [&str; 7] = ["held", "id", "onHand", "productId", "quantity", "sku", "updatedAt"];

#[tokio::test(flavor = "multi_thread")]
async fn a_product_gets_one_inventory() {
    let app = TestApp::start().await;
    let product =
        app.post("/products", &json!({"sku": "TEA-1", "name": "Tea"})).token(&app.admin).send().await.expect(201);
    let body = json!({"productId": product.body["id"], "sku": "TEA-1"});
    let made = app.post("/inventories", &body).token(&app.admin).send().await.expect(201);
    assert_eq!(members(&made.body), ["id", "quantity"]);
    assert_eq!(made.body["quantity"], 0);
    assert_eq!(made.header("location"), Some(format!("/inventories/{}", made.text_at("id")).as_str()));
    app.post("/inventories", &body).token(&app.admin).send().await.problem(409, "inventory_exists");
    let unknown = json!({"productId": "0192aaaa-0000-7000-8000-000000000001", "sku": "TEA-2"});
    app.post("/inventories", &unknown).token(&app.admin).send().await.problem(404, "product_not_found");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_comes_and_goes_and_the_ledger_is_an_unbroken_chain() {
    let app = TestApp::start().await;
    let ann = app.buyer("ann").await;
    let tea = app.product("TEA-1", json!(5), 10).await;
    let path = format!("/inventories/{}", tea.inventory);
    let change = async |body: Value| app.put(&path, &body).token(&app.admin).send().await;
    let received = change(json!({"quantity": 5, "actionType": "IN", "reference": "delivery 7"})).await.expect(200);
    assert_eq!(members(&received.body), DOCUMENT);
    assert!(is_time(&received.body["updatedAt"]));
    assert_eq!(app.stock(&tea).await, (15, 15, 0));
    change(json!({"quantity": 2, "actionType": "OUT", "reason": "damage"})).await.expect(200);
    app.cart(&tea, 3).await;
    let short = change(json!({"quantity": 11, "actionType": "OUT"})).await.problem(409, "insufficient_stock");
    assert_eq!(short.body["available"], 10);
    app.order(&ann, &tea, 4).await;
    assert_eq!(app.stock(&tea).await, (6, 9, 3));
    let by_a_buyer = app.get(&path).token(&ann.token).send().await.expect(200);
    assert_eq!(members(&by_a_buyer.body), DOCUMENT);

    let details = app.get(&format!("{path}/details")).token(&app.admin).send().await.expect(200);
    assert_eq!(
        members(&details.body),
        ["held", "histories", "id", "onHand", "productId", "quantity", "sku", "updatedAt"]
    );
    let rows = details.body["histories"]["data"].as_array().expect("rows");
    let row = rows.first().expect("a row");
    assert_eq!(
        members(row),
        [
            "actionType",
            "actor",
            "cartSessionId",
            "createdAt",
            "held",
            "heldChange",
            "id",
            "lastQuantity",
            "newQuantity",
            "onHand",
            "onHandChange",
            "orderId",
            "quantityChanged",
            "reason",
            "reference",
            "seq"
        ]
    );
    let told: Vec<_> = rows.iter().rev().map(|row| (row["reason"].as_str(), row["quantityChanged"].as_i64())).collect();
    let expected = [("initial", 10), ("receipt", 5), ("damage", 2), ("hold", 3), ("hold", 4), ("sale", 4)];
    assert_eq!(told, expected.map(|(reason, units)| (Some(reason), Some(units))));
    for (newer, older) in rows.iter().zip(&rows[1..]) {
        assert_eq!(newer["lastQuantity"], older["newQuantity"]);
        assert_eq!(newer["seq"].as_i64(), older["seq"].as_i64().map(|seq| seq + 1));
    }
    assert_eq!(row["newQuantity"], details.body["quantity"]);
    assert_eq!(rows[rows.len() - 2]["reference"], "delivery 7");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_paged() {
    let app = TestApp::start().await;
    let tea = app.product("TEA-1", json!(5), 1).await;
    let path = format!("/inventories/{}", tea.inventory);
    for _ in 0..4 {
        app.put(&path, &json!({"quantity": 1, "actionType": "IN"})).token(&app.admin).send().await.expect(200);
    }
    let mut seen = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let page = app.get(&format!("{path}/details{query}")).token(&app.admin).send().await.expect(200);
        let histories = &page.body["histories"];
        seen.extend(
            histories["data"].as_array().expect("rows").iter().map(|row| row["seq"].as_i64().expect("a number")),
        );
        let Some(cursor) = histories["nextCursor"].as_str() else { break };
        query = format!("?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);
    app.stop().await;
}
