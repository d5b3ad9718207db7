//! `/products`.

use serde_json::json;

use crate::app::{TestApp, is_time, members};

const SUMMARY: [&str; 7] = ["currency", "id", "inventoryId", "name", "price", "sku", "status"];
const DOCUMENT: [&str; 12] = [
    "createdAt",
    "currency",
    "description",
    "id",
    "inventoryId",
    "name",
    "price",
    "sku",
    "status",
    "stock",
    "stockStatus",
    "updatedAt",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_product_is_made_with_its_stock() {
    let app = TestApp::start().await;
    let body = json!({"sku": "TEA-1", "name": "Green tea", "description": "Loose\nleaf", "price": 19.9, "status": "PUBLISHED", "quantity": 7});
    let made = app.post("/products", &body).token(&app.admin).send().await.expect(201);
    assert_eq!(members(&made.body), DOCUMENT);
    let id = made.text_at("id");
    assert_eq!(made.header("location"), Some(format!("/products/{id}").as_str()));
    assert!(made.text.contains(r#""price":19.90,"currency":"USD""#), "{}", made.text);
    assert!(is_time(&made.body["createdAt"]) && is_time(&made.body["updatedAt"]), "{}", made.text);
    assert_eq!((&made.body["stock"], &made.body["stockStatus"]), (&json!(7), &json!("In stock")));

    let shown = app.get(&format!("/api/products/{id}")).send().await.expect(200);
    assert_eq!(shown.body, made.body);
    let path = format!("/inventories/{}", made.text_at("inventoryId"));
    let inventory = app.get(&path).token(&app.admin).send().await.expect(200);
    assert_eq!((&inventory.body["quantity"], &inventory.body["sku"]), (&json!(7), &json!("TEA-1")));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_without_a_quantity_has_no_inventory_until_one_is_made() {
    let app = TestApp::start().await;
    let made =
        app.post("/products", &json!({"sku": "TEA-1", "name": "Tea"})).token(&app.admin).send().await.expect(201);
    assert_eq!(
        (&made.body["inventoryId"], &made.body["price"], &made.body["status"], &made.body["description"]),
        (&json!(null), &json!(0.0), &json!("DRAFT"), &json!(null))
    );
    assert_eq!((&made.body["stock"], &made.body["stockStatus"]), (&json!(0), &json!("Out of stock")));
    let path = format!("/products/{}", made.text_at("id"));
    app.get(&path).token(&app.admin).send().await.expect(200);
    let body = json!({"productId": made.body["id"], "sku": "TEA-1", "quantity": 3});
    let inventory = app.post("/inventories", &body).token(&app.admin).send().await.expect(201);
    let shown = app.get(&path).token(&app.admin).send().await.expect(200);
    assert_eq!((&shown.body["inventoryId"], &shown.body["stock"]), (&inventory.body["id"], &json!(3)));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sku_is_taken_once_and_no_quantity_is_a_quantity() {
    let app = TestApp::start().await;
    let body = json!({"sku": "TEA-1", "name": "Tea", "quantity": 0});
    let made = app.post("/products", &body).token(&app.admin).send().await.expect(201);
    assert!(made.body["inventoryId"].is_string(), "{}", made.text);
    app.post("/products", &body).token(&app.admin).send().await.problem(409, "sku_taken");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sees_what() {
    let app = TestApp::start().await;
    let ann = app.buyer("ann").await;
    let mut ids = Vec::new();
    for (sku, status) in [("AAA", "DRAFT"), ("BBB", "PUBLISHED"), ("CCC", "UNLISTED")] {
        let body = json!({"sku": sku, "name": sku, "status": status});
        ids.push(app.post("/products", &body).token(&app.admin).send().await.expect(201).text_at("id"));
    }
    let listed = async |query: &str, token: Option<&str>| {
        let ask = app.get(&format!("/products{query}"));
        let ask = if let Some(token) = token { ask.token(token) } else { ask };
        let list = ask.send().await.expect(200);
        assert_eq!(members(&list.body), ["data", "nextCursor"]);
        let rows = list.body["data"].as_array().expect("rows").clone();
        assert!(rows.iter().all(|row| members(row) == SUMMARY), "{}", list.text);
        rows.iter().map(|row| row["sku"].as_str().expect("a text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed("", None).await, ["BBB"]);
    assert_eq!(listed("", Some(&ann.token)).await, ["BBB"]);
    assert_eq!(listed("?status=DRAFT", None).await, [""; 0]);
    assert_eq!(listed("", Some(&app.admin)).await, ["CCC", "BBB", "AAA"], "the newest first");
    assert_eq!(listed("?status=DRAFT", Some(&app.admin)).await, ["AAA"]);
    assert_eq!(listed("?sort=name", Some(&app.admin)).await, ["AAA", "BBB", "CCC"]);
    assert_eq!(listed("?q=bb", None).await, ["BBB"]);

    app.get(&format!("/products/{}", ids[0])).send().await.problem(404, "product_not_found");
    app.get(&format!("/products/{}", ids[0])).token(&ann.token).send().await.problem(404, "product_not_found");
    app.get(&format!("/products/{}", ids[0])).token(&app.admin).send().await.expect(200);
    app.get(&format!("/products/{}", ids[2])).send().await.expect(200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_paged_by_its_cursor() {
    let app = TestApp::start().await;
    for number in 0..5 {
        app.product(&format!("SKU-{number}"), json!(number), 1).await;
    }
    let mut seen = Vec::new();
    let mut path = "/products?limit=2&sort=price".to_owned();
    loop {
        let page = app.get(&path).send().await.expect(200);
        let rows = page.body["data"].as_array().expect("rows");
        assert!(rows.len() <= 2);
        seen.extend(rows.iter().map(|row| row["price"].as_f64().expect("a number")));
        let Some(cursor) = page.body["nextCursor"].as_str() else { break };
        path = format!("/products?limit=2&sort=price&cursor={cursor}");
    }
    assert_eq!(seen, [0.0, 1.0, 2.0, 3.0, 4.0]);
    let bad = app.get("/products?cursor=nonsense").send().await.bad_fields();
    assert!(bad.contains("cursor"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_changes_what_it_names_and_is_seen_at_once() {
    let app = TestApp::start().await;
    let tea = app.product("TEA-1", json!(5), 4).await;
    let path = format!("/products/{}", tea.id);
    app.get(&path).send().await.expect(200);
    let changed = app
        .put(&path, &json!({"price": 7.25, "description": "Green", "sku": "OTHER", "quantity": 99}))
        .token(&app.admin)
        .send()
        .await
        .expect(200);
    assert_eq!(members(&changed.body), DOCUMENT);
    assert_eq!(
        (&changed.body["price"], &changed.body["description"], &changed.body["sku"], &changed.body["stock"]),
        (&json!(7.25), &json!("Green"), &json!("TEA-1"), &json!(4))
    );
    assert_eq!(app.get(&path).send().await.expect(200).body, changed.body);
    let emptied = app.put(&path, &json!({"description": null})).token(&app.admin).send().await.expect(200);
    assert_eq!((&emptied.body["description"], &emptied.body["price"]), (&json!(null), &json!(7.25)));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prices_are_exact_beyond_what_a_float_holds() {
    let app = TestApp::start().await;
    let body = r#"{"sku": "GOLD", "name": "Gold", "price": 90071992547409.93}"#;
    let made = app.ask(reqwest::Method::POST, "/products").raw(body).token(&app.admin).send().await.expect(201);
    assert!(made.text.contains(r#""price":90071992547409.93,"#), "{}", made.text);
    app.stop().await;
}
