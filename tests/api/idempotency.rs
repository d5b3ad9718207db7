//! `Idempotency-Key`: a request has its effect once, however often it is sent.

use reqwest::Method;
use serde_json::json;

use crate::app::TestApp;

const LONG_KEY: &str = "3f1c9a7e5b2d4806a1c3e5f7091b2d4f";

#[tokio::test(flavor = "multi_thread")]
async fn every_command_is_done_once_a_key_and_answered_the_same() {
    let app = TestApp::start().await;
    let ann = app.buyer("ann").await;
    let tea = app.product("TEA-1", json!(2), 20).await;
    let session = app.cart(&tea, 2).await;
    let (item, inventory) = (format!("/cart/items/{}", tea.id), format!("/inventories/{}", tea.inventory));
    let add = json!({"productId": tea.id, "quantity": 3});
    let other_cart = app.cart(&tea, 1).await;
    let order = app.order(&ann, &tea, 1).await;
    let (cancel, status) =
        (format!("/orders/{order}/cancel"), format!("/orders/{}/status", app.order(&ann, &tea, 1).await));
    let in_stock = json!({"quantity": 5, "actionType": "IN"});
    // The last number is what can be sold after the command, whether it was sent once or again and again.
    let commands = [
        ("add", Method::POST, "/cart/add-to-cart", Some(add), None, 12),
        ("set", Method::PUT, item.as_str(), Some(json!({"quantity": 1})), None, 16),
        ("remove", Method::DELETE, item.as_str(), None, None, 17),
        ("in", Method::PUT, inventory.as_str(), Some(in_stock), Some(&app.admin), 22),
        (
            "checkout",
            Method::POST,
            "/orders/checkout",
            Some(json!({"cartSessionId": other_cart})),
            Some(&ann.token),
            22,
        ),
        ("cancel", Method::POST, cancel.as_str(), None, Some(&ann.token), 23),
        ("confirm", Method::PUT, status.as_str(), Some(json!({"status": "CONFIRMED"})), Some(&app.admin), 23),
        ("clear", Method::DELETE, "/cart", None, None, 23),
    ];
    for (key, method, path, body, token, available) in commands {
        let ask = |path: &str| {
            let ask = app.ask(method.clone(), path).key(key).session(&session);
            let ask = if let Some(body) = &body { ask.json(body) } else { ask };
            if let Some(token) = token { ask.token(token) } else { ask }
        };
        let first = ask(path).send().await;
        assert!(matches!(first.status, 200 | 201), "{key}: {}", first.text);
        assert_eq!(first.header("idempotency-replayed"), None, "{key}");
        assert_eq!(app.stock(&tea).await.0, available, "{key}");
        for path in [path.to_owned(), format!("/api{path}")] {
            let again = ask(&path).send().await;
            assert_eq!((again.status, &again.text), (first.status, &first.text), "{key} {path}");
            assert_eq!(again.header("idempotency-replayed"), Some("true"), "{key}");
            for header in ["location", "x-cart-session-id", "content-type"] {
                assert_eq!(again.header(header), first.header(header), "{key}: {header}");
            }
        }
        assert_eq!(app.stock(&tea).await.0, available, "{key}: once");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_belongs_to_one_request_of_one_caller() {
    let app = TestApp::start().await;
    let (ann, bob) = (app.buyer("ann").await, app.buyer("bob").await);
    let tea = app.product("TEA-1", json!(2), 20).await;
    let add =
        |quantity: i64| app.post("/cart/add-to-cart", &json!({"productId": tea.id, "quantity": quantity})).key("k-1");
    let first = add(1).token(&ann.token).send().await.expect(200);
    add(2).token(&ann.token).send().await.problem(422, "idempotency_key_reused");
    add(1).token(&ann.token).session(&first.session()).send().await.problem(422, "idempotency_key_reused");
    let of_bob = add(1).token(&bob.token).send().await.expect(200);
    assert_ne!(of_bob.session(), first.session(), "the same key of somebody else is another");
    let in_cart = add(1).session(&first.session()).send().await.expect(200);
    assert_eq!(in_cart.body["items"][0]["quantity"], 2);
    add(1).session(&of_bob.session()).send().await.expect(200);
    assert_eq!(app.stock(&tea).await, (16, 20, 4));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_without_a_cart_needs_a_key_that_nobody_guesses() {
    let app = TestApp::start().await;
    let tea = app.product("TEA-1", json!(2), 20).await;
    let add = |key: &str| app.post("/cart/add-to-cart", &json!({"productId": tea.id, "quantity": 1})).key(key);
    for bad in ["short", &"a".repeat(21), "with a space in between it", &"a".repeat(256)] {
        let named = add(bad).send().await.bad_fields();
        assert_eq!(named.into_iter().collect::<Vec<_>>(), ["Idempotency-Key"], "{bad}");
    }
    let first = add(LONG_KEY).send().await.expect(200);
    let again = add(LONG_KEY).send().await.expect(200);
    assert_eq!((first.text, again.header("idempotency-replayed")), (again.text.clone(), Some("true")));
    assert_eq!(app.stock(&tea).await, (19, 20, 1));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_not_kept() {
    let app = TestApp::start().await;
    let tea = app.product("TEA-1", json!(2), 1).await;
    let body = json!({"productId": tea.id, "quantity": 2});
    let add = || app.post("/cart/add-to-cart", &body).key(LONG_KEY);
    add().send().await.problem(409, "insufficient_stock");
    let path = format!("/inventories/{}", tea.inventory);
    app.put(&path, &json!({"quantity": 5, "actionType": "IN"})).token(&app.admin).send().await.expect(200);
    let done = add().send().await.expect(200);
    assert_eq!(done.header("idempotency-replayed"), None);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_many_times_at_once_has_its_effect_once() {
    let app = TestApp::start().await;
    let tea = app.product("TEA-1", json!(2), 50).await;
    let body = json!({"productId": tea.id, "quantity": 1});
    let asked = (0..20).map(|_| app.post("/cart/add-to-cart", &body).key(LONG_KEY).send());
    let mut sessions = Vec::new();
    for reply in futures_util::future::join_all(asked).await {
        match reply.status {
            200 => sessions.push(reply.session()),
            _ => assert_eq!((reply.status, reply.body["code"].as_str()), (409, Some("in_progress")), "{}", reply.text),
        }
    }
    assert!(!sessions.is_empty() && sessions.iter().all(|session| *session == sessions[0]), "{sessions:?}");
    assert_eq!(app.stock(&tea).await, (49, 50, 1));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_in_routes_take_no_key() {
    let app = TestApp::start().await;
    app.register("ann").await.expect(201);
    let login = json!({"email": crate::app::ADMIN_EMAIL, "password": crate::app::PASSWORD});
    let first = app.post("/auth/login", &login).key("k").send().await.expect(200);
    let second = app.post("/auth/login", &login).key("k").send().await.expect(200);
    assert_eq!(second.header("idempotency-replayed"), None);
    assert_ne!(first.body["refreshToken"], second.body["refreshToken"]);
    app.stop().await;
}
