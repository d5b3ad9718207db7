//! `/health`.

use serde_json::json;

use crate::app::TestApp;
use crate::database::Backend;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_serves_says_so() {
    let app = TestApp::start().await;
    let live = app.get("/health/live").send().await.expect(200);
    assert_eq!(live.body, json!({"status": "up"}));
    for path in ["/health", "/health/ready", "/api/health/ready"] {
        let state = if Backend::of_the_tests() == Backend::Real { "up" } else { "off" };
        let dependencies = json!({"database": "up", "redis": state, "rabbitmq": state, "smtp": state});
        let expected = json!({"status": "up", "dependencies": dependencies});
        app.until(path, |ready| *ready == expected).await;
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_it_is_not_ready_and_says_when_to_ask_again() {
    let app = TestApp::start().await;
    app.lose_the_database().await;
    app.get("/health/live").send().await.expect(200);
    for path in ["/health", "/health/ready"] {
        let unready = app.get(path).send().await.problem(503, "unavailable");
        assert_eq!(unready.body["dependencies"]["database"], "degraded");
        assert_eq!(unready.body["applied"], "no");
    }
    let list = app.get("/products").send().await.problem(503, "unavailable");
    assert_eq!(list.body["applied"], "no");
    assert!(!list.text.contains("sqlite") && !list.text.contains("pool"), "internals are not sent: {}", list.text);
    app.stop().await;
}
