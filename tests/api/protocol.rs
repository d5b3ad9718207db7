//! What is the same on every route: prefixes, methods, sign-in and roles, request ids.

use reqwest::Method;
use serde_json::Value;

use crate::app::TestApp;
use crate::routes::{Shop, Who};

#[tokio::test(flavor = "multi_thread")]
async fn every_route_asks_for_its_sign_in_under_both_prefixes() {
    let shop = Shop::start().await;
    let before = shop.everything().await;
    for route in shop.routes().into_iter().filter(|route| route.who != Who::Anybody) {
        for path in [route.path.clone(), format!("/api{}", route.path)] {
            let ask = || {
                let ask = shop.app.ask(route.method.clone(), &path).session(&shop.session);
                if let Some(body) = &route.body { ask.json(body) } else { ask }
            };
            ask().send().await.problem(401, "unauthorized");
            ask().token("no.good.token").send().await.problem(401, "unauthorized");
            if route.who == Who::Admin {
                ask().token(&shop.buyer.token).send().await.problem(403, "forbidden");
            }
        }
    }
    shop.is_as_it_was(before).await;
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_read_is_the_same_under_both_prefixes_and_has_a_head() {
    let shop = Shop::start().await;
    // Nothing is on its way any more that would change between two reads.
    let is_out = |mails: &Value| {
        mails["data"]
            .as_array()
            .is_some_and(|data| data.len() == 2 && data.iter().all(|mail| mail["status"] != "QUEUED"))
    };
    shop.app.until("/emails", is_out).await;
    for route in shop.routes().into_iter().filter(|route| route.method == Method::GET && route.path != "/cart/clear") {
        let plain = shop.ask(&route, &route.path).send().await.expect(200);
        let prefixed = shop.ask(&route, &format!("/api{}", route.path)).send().await.expect(200);
        // What is counted of the actors moves on between two looks.
        if route.path != "/admin/actors" {
            assert_eq!(plain.text, prefixed.text, "{}", route.name());
        }
        assert_eq!(plain.header("content-type"), Some("application/json"));
        let head = shop.app.ask(Method::HEAD, &route.path).token(&shop.app.admin).session(&shop.session);
        let head = head.send().await.expect(200);
        assert_eq!(head.text, "", "{}", route.name());
    }
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_are_405_with_those_that_are_known() {
    let shop = Shop::start().await;
    let routes = shop.routes();
    for path in routes.iter().map(|route| &route.path) {
        let known: Vec<_> =
            routes.iter().filter(|route| route.path == *path).map(|route| route.method.as_str()).collect();
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            if known.contains(&method.as_str()) {
                continue;
            }
            let reply = shop.app.ask(method.clone(), path).send().await.problem(405, "method_not_allowed");
            let allow = reply.header("allow").expect("the methods").to_owned();
            assert!(known.iter().all(|known| allow.split(", ").any(|method| method == *known)), "{path}: {allow}");
        }
    }
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_are_404() {
    let app = TestApp::start().await;
    for path in ["/", "/nowhere", "/api", "/api/", "/api/api/products", "/products/", "/cart", "/apiproducts"] {
        let reply = app.get(path).send().await;
        // A cart is cleared by DELETE alone; its path is known.
        if path == "/cart" {
            reply.problem(405, "method_not_allowed")
        } else {
            reply.problem(404, "not_found")
        };
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_an_id_the_clients_or_ours() {
    let app = TestApp::start().await;
    let given = app.get("/products").header("X-Request-Id", "from-the-gateway-17").send().await.expect(200);
    assert_eq!(given.header("x-request-id"), Some("from-the-gateway-17"));
    let refused = app.get("/orders").header("X-Request-Id", "r-1").send().await.problem(401, "unauthorized");
    assert_eq!(refused.body["instance"], "r-1");
    for not_sane in ["with a space", &"a".repeat(129)] {
        let replaced = app.get("/products").header("X-Request-Id", not_sane).send().await.expect(200);
        let id = replaced.header("x-request-id").expect("an id");
        assert_eq!(uuid::Uuid::parse_str(id).map(|id| id.get_version_num()), Ok(7));
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_goes_on_after_a_refusal() {
    let shop = Shop::start().await;
    for _ in 0..3 {
        shop.app.post("/products", &serde_json::json!({"sku": "x"})).send().await.problem(401, "unauthorized");
        shop.app.get("/products").send().await.expect(200);
    }
    shop.app.stop().await;
}
