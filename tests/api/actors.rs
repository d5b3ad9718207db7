//! `/admin/actors`.

use serde_json::{Value, json};

use crate::app::TestApp;

const KINDS: [&str; 7] = ["cart", "inventory", "journal", "mailer", "orders", "relay", "sweeper"];

async fn list(app: &TestApp, query: &str) -> Value {
    app.get(&format!("/admin/actors{query}")).token(&app.admin).send().await.expect(200).body
}

fn names(page: &Value) -> Vec<String> {
    let data = page["data"].as_array().expect("a list");
    data.iter().map(|actor| format!("{}/{}", actor["kind"], actor["id"]).replace('"', "")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mailbox_is_listed_with_what_went_through_it() {
    let app = TestApp::start().await;
    let (tea, cup) = (app.product("TEA-1", json!(2.5), 100).await, app.product("CUP-1", json!(4), 100).await);
    for _ in 0..5 {
        app.cart(&tea, 1).await;
    }
    app.cart(&cup, 1).await;
    let page = list(&app, "?kind=inventory&sort=-processed").await;
    assert_eq!(names(&page), [format!("inventory/{}", tea.inventory), format!("inventory/{}", cup.inventory)]);
    let first = &page["data"][0];
    assert_eq!((&first["processed"], &first["failed"], &first["rejected"]), (&json!(5), &json!(0), &json!(0)));
    assert_eq!(
        (&first["restarts"], &first["state"], &first["lastError"]),
        (&json!(0), &json!("running"), &Value::Null)
    );
    assert_eq!((&first["mailbox"]["depth"], &first["mailbox"]["capacity"]), (&json!(0), &json!(4096)));
    assert_eq!(first["mailbox"]["oldestAgeMs"], Value::Null);
    assert!(first["mailbox"]["highWater"].as_u64().expect("a number") >= 1);
    let latency = ["p50", "p99", "max"].map(|name| first["latencyMs"][name].as_f64().expect("a number"));
    assert!(latency.is_sorted() && latency[0] > 0.0, "{latency:?}");
    assert!(first["startedAt"].as_str() <= first["lastMessageAt"].as_str() && first["startedAt"].is_string());
    assert!(!first["node"].as_str().expect("a name").is_empty());

    let summary = page["summary"].as_array().expect("a list");
    assert_eq!(summary.iter().map(|kind| kind["kind"].as_str().expect("a name")).collect::<Vec<_>>(), KINDS);
    let inventories = &summary[1];
    assert_eq!(
        (&inventories["live"], &inventories["processed"], &inventories["depth"]),
        (&json!(2), &json!(6), &json!(0))
    );
    let one = app.get(&format!("/admin/actors/inventory/{}", tea.inventory)).token(&app.admin).send().await.expect(200);
    assert_eq!(one.body, *first);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_make_the_whole_list_in_its_order() {
    let app = TestApp::start().await;
    for number in 0..5 {
        let product = app.product(&format!("TEA-{number}"), json!(1), 100).await;
        app.cart(&product, 1).await;
    }
    // The singletons start when they are first needed: the relay, the mailer and the sweeper by themselves.
    app.until("/admin/actors?sort=kind&limit=100", |page| {
        let names = names(page);
        ["mailer/main", "relay/main", "sweeper/main"].iter().all(|one| names.iter().any(|name| name == one))
    })
    .await;
    for sort in ["kind", "-depth", "-processed"] {
        let whole = names(&list(&app, &format!("?sort={sort}&limit=100")).await);
        let (mut walked, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = list(&app, &format!("?sort={sort}&limit=2{cursor}")).await;
            walked.extend(names(&page));
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        if sort == "kind" {
            assert_eq!(walked, whole, "who is there does not change, and neither does the order");
            assert!(whole.is_sorted());
        }
        // What is counted moves on between two pages, so of these lists only the inventories stand still.
        let inventories = |names: &[String]| {
            let mut names: Vec<_> = names.iter().filter(|name| name.starts_with("inventory")).cloned().collect();
            names.sort();
            names
        };
        assert_eq!(inventories(&walked), inventories(&whole), "{sort}");
        assert_eq!(inventories(&walked).len(), 5, "{sort}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_that_is_restarted_comes_back_from_the_database() {
    let app = TestApp::start().await;
    let tea = app.product("TEA-1", json!(2.5), 100).await;
    app.cart(&tea, 3).await;
    let path = format!("/admin/actors/inventory/{}", tea.inventory);
    let restarted =
        app.ask(reqwest::Method::POST, &format!("{path}/restart")).token(&app.admin).send().await.expect(202);
    assert_eq!(restarted.body, json!({"kind": "inventory", "id": tea.inventory, "state": "down"}));
    app.until(&path, |actor| actor["state"] == "down").await;
    app.cart(&tea, 4).await;
    let stock = app.get(&format!("/inventories/{}", tea.inventory)).token(&app.admin).send().await.expect(200).body;
    assert_eq!((&stock["quantity"], &stock["held"]), (&json!(93), &json!(7)));
    let actor = app.get(&path).token(&app.admin).send().await.expect(200).body;
    assert_eq!((&actor["restarts"], &actor["state"]), (&json!(1), &json!("running")));
    assert_eq!(
        (&actor["processed"], &actor["failed"]),
        (&json!(2), &json!(0)),
        "two carts; who only looks asks nobody"
    );
    let kinds = list(&app, "?kind=inventory").await;
    assert_eq!((&kinds["summary"][1]["kills"], &kinds["summary"][1]["restarts"]), (&json!(1), &json!(1)));
    // The singletons too.
    for kind in ["journal", "relay", "mailer", "sweeper", "orders"] {
        app.until("/admin/actors?limit=100", |page| kind == "orders" || names(page).contains(&format!("{kind}/main")))
            .await;
        let status = if kind == "orders" { 404 } else { 202 };
        let ask = app.ask(reqwest::Method::POST, &format!("/admin/actors/{kind}/main/restart")).token(&app.admin);
        ask.send().await.expect(status);
    }
    let buyer = app.buyer("ann").await;
    app.order(&buyer, &tea, 1).await;
    app.until("/emails?source=orders", |mails| mails["data"].as_array().is_some_and(|data| data.len() == 1)).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_there_is_404() {
    let app = TestApp::start().await;
    let nobody = "00000000-0000-7000-8000-000000000000";
    for path in
        ["nobody/main".to_owned(), format!("inventory/{nobody}"), "inventory/main".to_owned(), "cart/x".to_owned()]
    {
        app.get(&format!("/admin/actors/{path}")).token(&app.admin).send().await.problem(404, "actor_not_found");
        let restart = app.ask(reqwest::Method::POST, &format!("/admin/actors/{path}/restart")).token(&app.admin);
        restart.send().await.problem(404, "actor_not_found");
    }
    app.stop().await;
}
