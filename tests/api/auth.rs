//! `/auth`.

use serde_json::{Value, json};

use crate::app::{PASSWORD, TestApp, members};

#[tokio::test(flavor = "multi_thread")]
async fn who_registers_verifies_and_signs_in() {
    let app = TestApp::start().await;
    let registered = app.register("ann").await.expect(201);
    assert_eq!(members(&registered.body), ["message", "user"]);
    let user = &registered.body["user"];
    assert_eq!(members(user), ["email", "id", "name", "role", "status", "verified"]);
    assert_eq!(
        (&user["email"], &user["role"], &user["status"], &user["verified"]),
        (&json!("ann@example.org"), &json!("USER"), &json!("ACTIVE"), &json!(false))
    );
    app.sign_in("ann@example.org", PASSWORD).await.problem(403, "email_not_verified");

    let code = app.mailed_code("ann@example.org").await;
    let verify = |code: &str| app.post("/auth/verify-email", &json!({"email": "Ann@Example.org", "code": code}));
    let verified = verify(&code).send().await.expect(200);
    assert_eq!(members(&verified.body), ["message"]);
    verify(&code).send().await.problem(400, "invalid_code");

    let signed_in = app.sign_in("ANN@example.org", PASSWORD).await.expect(200);
    assert_eq!(members(&signed_in.body), ["accessToken", "expiresIn", "refreshToken", "tokenType"]);
    assert_eq!((&signed_in.body["tokenType"], &signed_in.body["expiresIn"]), (&json!("Bearer"), &json!(7200)));

    let token = signed_in.text_at("accessToken");
    let whose = app.post("/auth/verify-token", &json!({"accessToken": token})).send().await.expect(200);
    let expected = json!({"id": user["id"], "email": "ann@example.org", "name": "ann", "role": "USER"});
    assert_eq!(whose.body, json!({"message": "Authorized", "user": expected}));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_one_account_in_whatever_case() {
    let app = TestApp::start().await;
    app.register("ann").await.expect(201);
    let again = json!({"email": "ANN@example.org", "password": PASSWORD, "name": "Another"});
    app.post("/auth/register", &again).send().await.problem(409, "email_taken");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_makes_the_profile_too() {
    let app = TestApp::start().await;
    let ann = app.buyer("ann").await;
    let profile = app.get(&format!("/users/{}?field=authUserId", ann.id)).token(&ann.token).send().await.expect(200);
    assert_eq!((&profile.body["email"], &profile.body["name"]), (&json!(ann.email), &json!("ann")));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_sign_in_says_the_same_with_and_without_an_account() {
    let app = TestApp::start().await;
    app.buyer("ann").await;
    let without_its_own = |mut body: Value| {
        body["instance"] = Value::Null;
        body
    };
    let wrong = app.sign_in("ann@example.org", "wrong horse").await.problem(401, "invalid_credentials");
    let nobody = app.sign_in("nobody@example.org", "wrong horse").await.problem(401, "invalid_credentials");
    assert_eq!(without_its_own(wrong.body), without_its_own(nobody.body));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_dies_of_five_wrong_tries_and_a_new_one_works() {
    let app = TestApp::start().await;
    app.register("ann").await.expect(201);
    let code = app.mailed_code("ann@example.org").await;
    let verify = |code: &str| app.post("/auth/verify-email", &json!({"email": "ann@example.org", "code": code}));
    let wrong = if code == "000000" { "000001" } else { "000000" };
    for _ in 0..5 {
        verify(wrong).send().await.problem(400, "invalid_code");
    }
    verify(&code).send().await.problem(400, "invalid_code");
    let nobody = json!({"email": "nobody@example.org", "code": code});
    app.post("/auth/verify-email", &nobody).send().await.problem(400, "invalid_code");

    let resend = |email: &str| app.post("/auth/resend-verification", &json!({"email": email}));
    let accepted = resend("ann@example.org").send().await.expect(202);
    let same = resend("nobody@example.org").send().await.expect(202);
    assert_eq!(accepted.body, same.body);
    let new = app.mailed_code("ann@example.org").await;
    verify(&new).send().await.expect(200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_no_good_are_refused() {
    let app = TestApp::start().await;
    let ann = app.buyer("ann").await;
    let (rest, _) = ann.token.rsplit_once('.').expect("three parts");
    for bad in ["x", "a.b.c", rest, &format!("{rest}.AAAA"), &ann.refresh_token] {
        app.get("/orders").token(bad).send().await.problem(401, "unauthorized");
        app.post("/auth/verify-token", &json!({"accessToken": bad})).send().await.problem(401, "unauthorized");
    }
    app.get("/orders").header("Authorization", "Basic YTpi").send().await.problem(401, "unauthorized");
    app.get("/products").token("x").send().await.problem(401, "unauthorized");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_works_once_and_twice_ends_its_family() {
    let app = TestApp::start().await;
    let ann = app.buyer("ann").await;
    let refresh = |token: &str| app.post("/auth/refresh", &json!({"refreshToken": token}));
    let second = refresh(&ann.refresh_token).send().await.expect(200);
    assert_eq!(members(&second.body), ["accessToken", "expiresIn", "refreshToken", "tokenType"]);
    app.get("/orders").token(&second.text_at("accessToken")).send().await.expect(200);
    refresh(&ann.refresh_token).send().await.problem(401, "unauthorized");
    refresh(&second.text_at("refreshToken")).send().await.problem(401, "unauthorized");
    refresh("never given out").send().await.problem(401, "unauthorized");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_ends_the_refresh_token() {
    let app = TestApp::start().await;
    let ann = app.buyer("ann").await;
    let body = json!({"refreshToken": ann.refresh_token});
    let out = app.post("/auth/logout", &body).send().await.expect(204);
    assert_eq!(out.text, "");
    app.post("/auth/refresh", &body).send().await.problem(401, "unauthorized");
    app.post("/auth/logout", &json!({"refreshToken": "unknown"})).send().await.expect(204);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_password_is_set_by_a_mailed_code() {
    let app = TestApp::start().await;
    let ann = app.buyer("ann").await;
    let forgot = |email: &str| app.post("/auth/forgot-password", &json!({"email": email}));
    let accepted = forgot(&ann.email).send().await.expect(202);
    assert_eq!(accepted.body, forgot("nobody@example.org").send().await.expect(202).body);
    let code = app.mailed_code(&ann.email).await;
    let verify = json!({"email": ann.email, "code": code});
    app.post("/auth/verify-email", &verify).send().await.problem(400, "invalid_code");
    let reset = |code: &str| {
        app.post("/auth/reset-password", &json!({"email": ann.email, "code": code, "password": "battery staple"}))
    };
    reset("wrong").send().await.problem(400, "invalid_code");
    let done = reset(&code).send().await.expect(200);
    assert_eq!(members(&done.body), ["message"]);
    reset(&code).send().await.problem(400, "invalid_code");
    app.sign_in(&ann.email, PASSWORD).await.problem(401, "invalid_credentials");
    app.sign_in(&ann.email, "battery staple").await.expect(200);
    app.post("/auth/refresh", &json!({"refreshToken": ann.refresh_token})).send().await.problem(401, "unauthorized");
    app.stop().await;
}
