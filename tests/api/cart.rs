//! `/cart`.

use serde_json::json;

use crate::app::{TestApp, is_time, members};

const UNKNOWN: &str = "0192aaaa-0000-7000-8000-000000000001";
const CART: [&str; 5] = ["cartSessionId", "currency", "expiresAt", "items", "subtotal"];

#[tokio::test(flavor = "multi_thread")]
async fn putting_things_in_a_cart_holds_them() {
    let app = TestApp::start().await;
    let tea = app.product("TEA-1", json!(19.99), 10).await;
    let cup = app.product("CUP-1", json!(5), 10).await;
    let add = |product: &str, quantity: i64| {
        app.post("/cart/add-to-cart", &json!({"productId": product, "quantity": quantity}))
    };
    let first = add(&tea.id, 2).send().await.expect(200);
    assert_eq!(members(&first.body), ["cartSessionId", "currency", "expiresAt", "items", "message", "subtotal"]);
    let session = first.session();
    assert_eq!(session.len(), 64);
    assert!(is_time(&first.body["expiresAt"]));
    assert_eq!(add(&tea.id, 1).session(&session).send().await.expect(200).session(), session);
    let with_inventory = json!({"productId": cup.id, "inventoryId": cup.inventory, "quantity": 1});
    app.post("/cart/add-to-cart", &with_inventory).session(&session).send().await.expect(200);

    let shown = app.get("/cart/me").session(&session).send().await.expect(200);
    assert_eq!(members(&shown.body), CART);
    assert_eq!(shown.session(), session);
    let expected = json!([
        {"productId": tea.id, "inventoryId": tea.inventory, "quantity": 3, "sku": "TEA-1", "name": "Product TEA-1", "price": 19.99, "total": 59.97},
        {"productId": cup.id, "inventoryId": cup.inventory, "quantity": 1, "sku": "CUP-1", "name": "Product CUP-1", "price": 5.0, "total": 5.0},
    ]);
    assert_eq!(shown.body["items"], expected);
    assert!(shown.text.contains(r#""subtotal":64.97,"currency":"USD""#), "{}", shown.text);
    assert_eq!((app.stock(&tea).await, app.stock(&cup).await), ((7, 10, 3), (9, 10, 1)));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quantity_is_set_and_zero_removes() {
    let app = TestApp::start().await;
    let tea = app.product("TEA-1", json!(2), 10).await;
    let session = app.cart(&tea, 2).await;
    let path = format!("/cart/items/{}", tea.id);
    let set = |quantity: i64| app.put(&path, &json!({"quantity": quantity})).session(&session);
    let more = set(5).send().await.expect(200);
    assert_eq!(members(&more.body), CART);
    assert_eq!((&more.body["items"][0]["quantity"], app.stock(&tea).await), (&json!(5), (5, 10, 5)));
    set(1).send().await.expect(200);
    assert_eq!(app.stock(&tea).await, (9, 10, 1));
    let gone = set(0).send().await.expect(200);
    assert_eq!((&gone.body["items"], app.stock(&tea).await), (&json!([]), (10, 10, 0)));
    set(1).send().await.problem(404, "item_not_found");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_is_taken_out() {
    let app = TestApp::start().await;
    let tea = app.product("TEA-1", json!(2), 10).await;
    let session = app.cart(&tea, 2).await;
    let path = format!("/cart/items/{}", tea.id);
    let gone = app.delete(&path).session(&session).send().await.expect(200);
    assert_eq!((members(&gone.body), &gone.body["items"]), (CART.to_vec(), &json!([])));
    assert_eq!(app.stock(&tea).await, (10, 10, 0));
    let refused = app.delete(&path).session(&session).send().await.problem(404, "item_not_found");
    assert_eq!(refused.header("x-cart-session-id"), Some(session.as_str()), "refusals name the session too");
    app.delete(&path).send().await.problem(404, "cart_not_found");
    app.delete("/cart/items/17").session(&session).send().await.problem(404, "item_not_found");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleared_cart_gives_its_units_back() {
    let app = TestApp::start().await;
    let tea = app.product("TEA-1", json!(2), 10).await;
    for method in [reqwest::Method::GET, reqwest::Method::DELETE] {
        let session = app.cart(&tea, 4).await;
        let path = if method == reqwest::Method::GET { "/cart/clear" } else { "/cart" };
        let cleared = app.ask(method, path).session(&session).send().await.expect(200);
        assert_eq!(cleared.body, json!({"message": "Cart is empty"}));
        assert_eq!(app.stock(&tea).await, (10, 10, 0), "the stock is back before the answer");
        app.delete("/cart").session(&session).send().await.expect(200);
        let add = json!({"productId": tea.id, "quantity": 1});
        let new = app.post("/cart/add-to-cart", &add).session(&session).send().await.expect(200).session();
        assert_ne!(new, session, "a used session takes no more lines");
        app.delete("/cart").session(&new).send().await.expect(200);
    }
    app.delete("/cart").send().await.expect(200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cart_is_an_empty_cart() {
    let app = TestApp::start().await;
    let empty = json!({"cartSessionId": null, "items": [], "subtotal": 0.0, "currency": "USD", "expiresAt": null});
    let nobodys = app.get("/cart/me").send().await.expect(200);
    assert_eq!((&nobodys.body, nobodys.header("x-cart-session-id")), (&empty, None));
    let malformed = app.get("/cart/me").session("abc").send().await.expect(200);
    assert_eq!((&malformed.body, malformed.header("x-cart-session-id")), (&empty, None));
    let unknown = "ab".repeat(32);
    let not_open = app.get("/cart/me").session(&unknown).send().await.expect(200);
    assert_eq!((not_open.session(), &not_open.body["items"]), (unknown, &json!([])));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_half_of_a_session_is_needed() {
    let app = TestApp::start().await;
    let tea = app.product("TEA-1", json!(2), 10).await;
    let session = app.cart(&tea, 4).await;
    let guessed = format!("{}{}", &session[..32], "0".repeat(32));
    let shown = app.get("/cart/me").session(&guessed).send().await.expect(200);
    assert_eq!(shown.body["items"], json!([]));
    app.delete("/cart").session(&guessed).send().await.expect(200);
    assert_eq!(app.stock(&tea).await, (6, 10, 4));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_had_is_refused_and_nothing_is_held() {
    let app = TestApp::start().await;
    let tea = app.product("TEA-1", json!(2), 3).await;
    let cup = app.product("CUP-1", json!(2), 3).await;
    let draft = app
        .post("/products", &json!({"sku": "DRAFT", "name": "Draft", "quantity": 5}))
        .token(&app.admin)
        .send()
        .await
        .expect(201);
    let add = |body| app.post("/cart/add-to-cart", &body);
    let short = add(json!({"productId": tea.id, "quantity": 4})).send().await.problem(409, "insufficient_stock");
    assert_eq!(short.body["available"], 3);
    add(json!({"productId": UNKNOWN, "quantity": 1})).send().await.problem(404, "product_not_found");
    add(json!({"productId": draft.body["id"], "quantity": 1})).send().await.problem(404, "product_not_found");
    let other = json!({"productId": tea.id, "inventoryId": cup.inventory, "quantity": 1});
    add(other).send().await.problem(400, "inventory_mismatch");
    assert_eq!((app.stock(&tea).await, app.stock(&cup).await), ((3, 3, 0), (3, 3, 0)));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cart_holds_so_much_and_no_more() {
    let app = TestApp::start_with(|config| (config.shop.limits.lines, config.shop.limits.units) = (1, 5)).await;
    let tea = app.product("TEA-1", json!(2), 10).await;
    let cup = app.product("CUP-1", json!(2), 10).await;
    let session = app.cart(&tea, 5).await;
    let add =
        |product: &str| app.post("/cart/add-to-cart", &json!({"productId": product, "quantity": 1})).session(&session);
    add(&tea.id).send().await.problem(409, "hold_limit");
    add(&cup.id).send().await.problem(409, "hold_limit");
    assert_eq!((app.stock(&tea).await, app.stock(&cup).await), ((5, 10, 5), (10, 10, 0)));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_total_that_would_not_fit_is_refused_and_nothing_is_held() {
    let app = TestApp::start().await;
    let body = r#"{"sku":"GOLD","name":"Gold","price":92233720368547758.07,"status":"PUBLISHED","quantity":9}"#;
    let made = app.ask(reqwest::Method::POST, "/products").raw(body).token(&app.admin).send().await.expect(201);
    let add =
        |quantity: i64| app.post("/cart/add-to-cart", &json!({"productId": made.body["id"], "quantity": quantity}));
    add(2).send().await.problem(409, "total_overflow");
    let one = add(1).send().await.expect(200);
    assert!(one.text.contains(r#""subtotal":92233720368547758.07,"#), "{}", one.text);
    add(1).session(&one.session()).send().await.problem(409, "total_overflow");
    let path = format!("/inventories/{}", made.text_at("inventoryId"));
    let stock = app.get(&path).token(&app.admin).send().await.expect(200);
    assert_eq!((&stock.body["quantity"], &stock.body["held"]), (&json!(8), &json!(1)));
    app.stop().await;
}
