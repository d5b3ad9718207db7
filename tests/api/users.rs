//! `/users`.

use serde_json::{Value, json};

use crate::app::{PASSWORD, TestApp, is_time, members};

const DOCUMENT: [&str; 8] = ["address", "authUserId", "createdAt", "email", "id", "name", "phone", "updatedAt"];

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_is_its_users_and_the_admins() {
    let app = TestApp::start().await;
    let (ann, bob) = (app.buyer("ann").await, app.buyer("bob").await);
    let by_account = format!("/users/{}?field=authUserId", ann.id);
    let profile = app.get(&by_account).token(&ann.token).send().await.expect(200);
    assert_eq!(members(&profile.body), DOCUMENT);
    assert_eq!((&profile.body["authUserId"], &profile.body["address"]), (&json!(ann.id), &Value::Null));
    assert!(is_time(&profile.body["createdAt"]));
    let path = format!("/users/{}", profile.text_at("id"));
    assert_eq!(app.get(&path).token(&ann.token).send().await.expect(200).body, profile.body);
    assert_eq!(app.get(&path).token(&app.admin).send().await.expect(200).body, profile.body);
    app.get(&path).token(&bob.token).send().await.problem(404, "user_not_found");
    app.get(&by_account).token(&bob.token).send().await.problem(404, "user_not_found");
    app.patch(&path, &json!({"name": "Mallory"})).token(&bob.token).send().await.problem(404, "user_not_found");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_changes_what_it_names_and_null_removes() {
    let app = TestApp::start().await;
    let ann = app.buyer("ann").await;
    let profile = app.get(&format!("/users/{}?field=authUserId", ann.id)).token(&ann.token).send().await.expect(200);
    let path = format!("/users/{}", profile.text_at("id"));
    let change = async |body: Value| app.patch(&path, &body).token(&ann.token).send().await.expect(200).body;
    let changed = change(json!({"address": "1 Way\nTown", "phone": "+41 1"})).await;
    assert_eq!(members(&changed), DOCUMENT);
    assert_eq!(
        (&changed["address"], &changed["phone"], &changed["name"]),
        (&json!("1 Way\nTown"), &json!("+41 1"), &json!("ann"))
    );
    let changed = change(json!({"name": "Ann Lee", "phone": null})).await;
    assert_eq!(
        (&changed["address"], &changed["phone"], &changed["name"]),
        (&json!("1 Way\nTown"), &Value::Null, &json!("Ann Lee"))
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_one_profile() {
    let app = TestApp::start().await;
    let ann = app.buyer("ann").await;
    let body = |user: &str| json!({"authUserId": user, "name": "Ann Lee", "email": "ann@example.org"});
    app.post("/users", &body(&ann.id)).token(&app.admin).send().await.problem(409, "user_exists");
    let unknown = body("0192aaaa-0000-7000-8000-000000000001");
    app.post("/users", &unknown).token(&app.admin).send().await.problem(404, "user_not_found");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_users_tokens_stop_working_at_once() {
    let app = TestApp::start().await;
    let ann = app.buyer("ann").await;
    let profile = app.get(&format!("/users/{}?field=authUserId", ann.id)).token(&ann.token).send().await.expect(200);
    let path = format!("/users/{}/status", profile.text_at("id"));
    let set = |status: &str| app.put(&path, &json!({"status": status})).token(&app.admin);
    let suspended = set("SUSPENDED").send().await.expect(200);
    assert_eq!(members(&suspended.body), ["authUserId", "email", "id", "name", "role", "status", "verified"]);
    assert_eq!((&suspended.body["id"], &suspended.body["status"]), (&profile.body["id"], &json!("SUSPENDED")));
    app.get("/orders").token(&ann.token).send().await.problem(401, "unauthorized");
    app.sign_in(&ann.email, PASSWORD).await.problem(403, "account_suspended");
    app.sign_in(&ann.email, "wrong horse").await.problem(401, "invalid_credentials");
    app.post("/auth/refresh", &json!({"refreshToken": ann.refresh_token})).send().await.problem(401, "unauthorized");
    set("ACTIVE").send().await.expect(200);
    app.get("/orders").token(&ann.token).send().await.expect(200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_takes_effect_at_once_and_the_last_admin_stays() {
    let app = TestApp::start().await;
    let ann = app.buyer("ann").await;
    app.get("/emails").token(&ann.token).send().await.problem(403, "forbidden");
    let role =
        |user: &str, role: &str| app.put(&format!("/users/{user}/role?field=authUserId"), &json!({"role": role}));
    let raised = role(&ann.id, "ADMIN").token(&app.admin).send().await.expect(200);
    assert_eq!(raised.body["role"], "ADMIN");
    app.get("/emails").token(&ann.token).send().await.expect(200);
    role(&ann.id, "USER").token(&ann.token).send().await.expect(200);
    app.get("/emails").token(&ann.token).send().await.problem(403, "forbidden");

    let admin = app.post("/auth/verify-token", &json!({"accessToken": app.admin})).send().await.expect(200);
    let admin = admin.body["user"]["id"].as_str().expect("an id").to_owned();
    role(&admin, "USER").token(&app.admin).send().await.problem(409, "last_admin");
    let suspend = app.put(&format!("/users/{admin}/status?field=authUserId"), &json!({"status": "SUSPENDED"}));
    suspend.token(&app.admin).send().await.problem(409, "last_admin");
    app.stop().await;
}
