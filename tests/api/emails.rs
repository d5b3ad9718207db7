//! `/emails`.

use serde_json::json;

use crate::app::{TestApp, is_time, members};
use crate::database::Backend;

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_kept_and_shown() {
    let app = TestApp::start().await;
    let (kept, stands) = match Backend::of_the_tests() {
        Backend::Sqlite | Backend::Postgres => ("CAPTURED", "CAPTURED"),
        Backend::Real => ("QUEUED", "SENT"),
    };
    let body = json!({"recipient": "Ann@example.org", "subject": "Hello", "body": "Two\nlines", "source": "support"});
    let sent = app.post("/emails/send", &body).token(&app.admin).send().await.expect(202);
    assert_eq!((members(&sent.body), &sent.body["status"]), (vec!["id", "status"], &json!(kept)));
    let mut with_sender = body.clone();
    with_sender["sender"] = json!("Support <support@example.org>");
    app.post("/emails/send", &with_sender).token(&app.admin).send().await.expect(202);

    let path = format!("/emails?source=support&recipient=ann@example.org&status={stands}");
    let list = app.until(&path, |list| list["data"].as_array().is_some_and(|mails| mails.len() == 2)).await;
    assert_eq!(members(&list), ["data", "nextCursor"]);
    let mails = list["data"].as_array().expect("mails");
    assert_eq!(mails[0]["sender"], "Support <support@example.org>", "the newest first");
    let first = &mails[1];
    assert_eq!(
        members(first),
        [
            "attempts",
            "body",
            "createdAt",
            "id",
            "lastError",
            "recipient",
            "sender",
            "sentAt",
            "source",
            "status",
            "subject"
        ]
    );
    assert_eq!(
        (&first["id"], &first["recipient"], &first["subject"], &first["body"]),
        (&sent.body["id"], &json!("ann@example.org"), &json!("Hello"), &json!("Two\nlines"))
    );
    assert!(is_time(&first["createdAt"]));
    let none = app.get("/emails?status=FAILED").token(&app.admin).send().await.expect(200);
    assert_eq!(none.body["data"], json!([]));
    app.stop().await;
}
