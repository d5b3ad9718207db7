//! `/orders`.

use serde_json::{Value, json};

use crate::app::{TestApp, is_time, members};

const DOCUMENT: [&str; 14] = [
    "createdAt",
    "currency",
    "grandTotal",
    "id",
    "orderItems",
    "paymentReference",
    "shippingAddress",
    "status",
    "subtotal",
    "tax",
    "updatedAt",
    "userEmail",
    "userId",
    "userName",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_cart_becomes_an_order() {
    let app = TestApp::start().await;
    let ann = app.buyer("ann").await;
    let tea = app.product("TEA-1", json!(19.99), 10).await;
    let session = app.cart(&tea, 3).await;
    let address = json!({"street": "1 Way", "zip": "0123"});
    let body = json!({
        "cartSessionId": session, "shippingAddress": address, "expectedTotal": 59.97,
        "userId": "somebody", "userName": "Else", "userEmail": "else@example.org"
    });
    let placed = app.post("/api/orders/checkout", &body).token(&ann.token).send().await.expect(201);
    assert_eq!(members(&placed.body), DOCUMENT);
    let id = placed.text_at("id");
    assert_eq!(placed.header("location"), Some(format!("/api/orders/{id}").as_str()));
    assert!(
        placed.text.contains(r#""subtotal":59.97,"tax":0.00,"grandTotal":59.97,"currency":"USD","status":"PENDING""#),
        "{}",
        placed.text
    );
    assert_eq!(
        (&placed.body["userId"], &placed.body["userName"], &placed.body["userEmail"]),
        (&json!(ann.id), &json!("ann"), &json!(ann.email))
    );
    assert_eq!((&placed.body["shippingAddress"], &placed.body["paymentReference"]), (&address, &Value::Null));
    let item = json!({"productId": tea.id, "productName": "Product TEA-1", "sku": "TEA-1", "price": 19.99, "quantity": 3, "total": 59.97});
    assert_eq!(placed.body["orderItems"], json!([item]));
    assert!(is_time(&placed.body["createdAt"]) && is_time(&placed.body["updatedAt"]));
    assert_eq!(app.stock(&tea).await, (7, 7, 0));

    let shown = app.get(&format!("/orders/{id}")).token(&ann.token).send().await.expect(200);
    assert_eq!(shown.body, placed.body);
    let again =
        app.post("/orders/checkout", &json!({"cartSessionId": session})).token(&ann.token).send().await.expect(200);
    assert_eq!(again.body["id"], placed.body["id"], "one cart makes one order");
    let bob = app.buyer("bob").await;
    app.post("/orders/checkout", &json!({"cartSessionId": session}))
        .token(&bob.token)
        .send()
        .await
        .problem(409, "cart_ordered");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_may_be_in_the_header_and_the_body_wins() {
    let app = TestApp::start().await;
    let ann = app.buyer("ann").await;
    let tea = app.product("TEA-1", json!(2), 10).await;
    let checkout = || app.ask(reqwest::Method::POST, "/orders/checkout").token(&ann.token);
    let (one, other) = (app.cart(&tea, 1).await, app.cart(&tea, 2).await);
    let by_body = checkout().session(&one).json(&json!({"cartSessionId": other})).send().await.expect(201);
    assert_eq!(by_body.body["orderItems"][0]["quantity"], 2);
    let by_header = checkout().session(&one).send().await.expect(201);
    assert_eq!(by_header.body["orderItems"][0]["quantity"], 1);
    let neither = checkout().json(&json!({})).send().await.bad_fields();
    assert_eq!(neither.into_iter().collect::<Vec<_>>(), ["cartSessionId"]);
    for nothing in ["abc", &"ab".repeat(32)] {
        checkout().json(&json!({"cartSessionId": nothing})).send().await.problem(400, "cart_empty");
        checkout().session(nothing).send().await.problem(400, "cart_empty");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_or_expired_cart_and_another_price_are_refused() {
    let app = TestApp::start().await;
    let ann = app.buyer("ann").await;
    let tea = app.product("TEA-1", json!(2), 10).await;
    let session = app.cart(&tea, 3).await;
    let checkout = |body: Value| app.post("/orders/checkout", &body).token(&ann.token).session(&session);
    let changed = checkout(json!({"expectedTotal": 5.99})).send().await.problem(409, "price_changed");
    assert!(changed.text.contains(r#""grandTotal":6.00"#), "{}", changed.text);
    assert_eq!(app.stock(&tea).await, (7, 10, 3), "the cart is as it was");
    app.delete(&format!("/cart/items/{}", tea.id)).session(&session).send().await.expect(200);
    checkout(json!({})).send().await.problem(400, "cart_empty");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_its_buyers_and_the_admins() {
    let app = TestApp::start().await;
    let (ann, bob) = (app.buyer("ann").await, app.buyer("bob").await);
    let tea = app.product("TEA-1", json!(2), 10).await;
    let of_ann = app.order(&ann, &tea, 1).await;
    let of_bob = app.order(&bob, &tea, 1).await;
    let path = format!("/orders/{of_ann}");
    app.get(&path).token(&bob.token).send().await.problem(404, "order_not_found");
    app.get(&path).token(&app.admin).send().await.expect(200);
    let cancel = format!("{path}/cancel");
    app.ask(reqwest::Method::POST, &cancel).token(&bob.token).send().await.problem(404, "order_not_found");

    let listed = async |query: &str, token: &str| {
        let list = app.get(&format!("/orders{query}")).token(token).send().await.expect(200);
        assert_eq!(members(&list.body), ["data", "nextCursor"]);
        let rows = list.body["data"].as_array().expect("rows").clone();
        assert!(rows.iter().all(|row| members(row) == DOCUMENT), "{}", list.text);
        rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed("", &ann.token).await, std::slice::from_ref(&of_ann));
    assert_eq!(listed(&format!("?userId={}", bob.id), &ann.token).await, std::slice::from_ref(&of_ann));
    assert_eq!(listed("", &app.admin).await, [of_bob.clone(), of_ann.clone()], "the newest first");
    assert_eq!(listed(&format!("?userId={}", bob.id), &app.admin).await, [of_bob]);
    assert_eq!(listed("?status=SHIPPED", &ann.token).await, [""; 0]);
    assert_eq!(listed("?status=PENDING", &ann.token).await, [of_ann]);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_order_gives_its_units_back_once() {
    let app = TestApp::start().await;
    let ann = app.buyer("ann").await;
    let tea = app.product("TEA-1", json!(2), 10).await;
    let order = app.order(&ann, &tea, 4).await;
    let path = format!("/orders/{order}/cancel");
    let cancel = || app.ask(reqwest::Method::POST, &path).token(&ann.token);
    let cancelled = cancel().typed("text/plain", "").send().await.expect(200);
    assert_eq!((members(&cancelled.body), &cancelled.body["status"]), (DOCUMENT.to_vec(), &json!("CANCELLED")));
    assert_eq!(app.stock(&tea).await, (10, 10, 0));
    let again = cancel().send().await.problem(409, "invalid_transition");
    assert_eq!((&again.body["from"], &again.body["to"]), (&json!("CANCELLED"), &json!("CANCELLED")));
    assert_eq!(app.stock(&tea).await, (10, 10, 0));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_moves_on_step_by_step() {
    let app = TestApp::start().await;
    let ann = app.buyer("ann").await;
    let tea = app.product("TEA-1", json!(2), 10).await;
    let order = app.order(&ann, &tea, 4).await;
    let path = format!("/orders/{order}/status");
    let set = |body: Value| app.put(&path, &body).token(&app.admin);
    let skipped = set(json!({"status": "SHIPPED"})).send().await.problem(409, "invalid_transition");
    assert_eq!((&skipped.body["from"], &skipped.body["to"]), (&json!("PENDING"), &json!("SHIPPED")));
    let paid = set(json!({"status": "CONFIRMED", "paymentReference": "pay-1"})).send().await.expect(200);
    assert_eq!((&paid.body["status"], &paid.body["paymentReference"]), (&json!("CONFIRMED"), &json!("pay-1")));
    let shipped = set(json!({"status": "SHIPPED", "paymentReference": "pay-2"})).send().await.expect(200);
    assert_eq!(shipped.body["paymentReference"], "pay-1", "it is kept on CONFIRMED");
    let cancel = format!("/orders/{order}/cancel");
    app.ask(reqwest::Method::POST, &cancel).token(&ann.token).send().await.problem(409, "invalid_transition");
    set(json!({"status": "DELIVERED"})).send().await.expect(200);
    for next in ["PENDING", "CONFIRMED", "SHIPPED", "DELIVERED", "CANCELLED"] {
        set(json!({"status": next})).send().await.problem(409, "invalid_transition");
    }
    assert_eq!(app.stock(&tea).await, (6, 6, 0));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_comes_back_letter_for_letter() {
    let app = TestApp::start().await;
    let ann = app.buyer("ann").await;
    let tea = app.product("TEA-1", json!(2), 10).await;
    for address in [r#"{"b": 1.50,  "a": [1e2, "é\u00e9"]}"#, r#""1 Way\nTown""#] {
        let session = app.cart(&tea, 1).await;
        let body = format!(r#"{{"cartSessionId":"{session}","shippingAddress":{address}}}"#);
        let checkout = app.ask(reqwest::Method::POST, "/orders/checkout").raw(body).token(&ann.token);
        let placed = checkout.send().await.expect(201);
        assert!(placed.text.contains(&format!(r#""shippingAddress":{address},"#)), "{}", placed.text);
        let path = format!("/orders/{}", placed.text_at("id"));
        assert_eq!(app.get(&path).token(&ann.token).send().await.expect(200).text, placed.text);
    }
    app.stop().await;
}
