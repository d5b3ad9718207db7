//! `/health`.

use serde_json::json;

use crate::app::TestApp;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_serves_says_so() {
    let app = TestApp::start().await;
    let live = app.get("/health/live").send().await.expect(200);
    assert_eq!(live.body, json!({"status": "up"}));
    for path in ["/health", "/health/ready", "/api/health/ready"] {
        let ready = app.get(path).send().await.expect(200);
        let off = json!({"database": "up", "redis": "off", "rabbitmq": "off", "smtp": "off"});
        assert_eq!(ready.body, json!({"status": "up", "dependencies": off}), "{path}");
    }
    app.stop().await;
}
