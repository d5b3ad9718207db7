//! What is in the mails that arrive.

use reqwest::Method;
use serde_json::json;

use crate::post::{PATIENCE, mails, open, until_it_is};
use crate::support::smtp::{Arrived, Sink};
use crate::support::{Buyer, TestShop, until};

/// The texts of a mail's two parts, plain and HTML, with their lines put together again.
fn parts(mail: &Arrived) -> (String, String) {
    let content_type = mail.header("Content-Type");
    assert!(content_type.starts_with("multipart/alternative"), "{content_type}");
    let boundary = content_type.split('"').nth(1).expect("a boundary");
    let separator = format!("--{boundary}");
    let mut found = mail.text.split(&separator).skip(1).map(|part| {
        let (head, body) = part.split_once("\r\n\r\n").unwrap_or((part, ""));
        let text = if head.contains("quoted-printable") { unquoted(body) } else { body.to_owned() };
        (head.to_owned(), text)
    });
    let (plain, html) = (found.next().expect("a first part"), found.next().expect("a second part"));
    assert!(plain.0.contains("text/plain") && html.0.contains("text/html"), "{} {}", plain.0, html.0);
    (plain.1, html.1)
}

/// Quoted-printable (RFC 2045, 6.7) as it was before.
fn unquoted(text: &str) -> String {
    let text = text.replace("=\r\n", "");
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'=' {
            let code = [rest.next().expect("a digit"), rest.next().expect("a digit")];
            let code = std::str::from_utf8(&code).expect("ASCII").to_owned();
            bytes.push(u8::from_str_radix(&code, 16).expect("a number"));
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// Waits until a mail to somebody with such a subject arrives.
async fn arrival(sink: &Sink, recipient: &str, subject: &str) -> Arrived {
    let look = async || {
        let mut arrived = sink.arrived().into_iter();
        arrived.find(|mail| mail.recipient == recipient && mail.header("Subject").contains(subject))
    };
    until(&format!("{subject} for {recipient}"), PATIENCE, look).await
}

async fn register(shop: &TestShop, email: &str, name: &str) {
    let body = json!({"email": email, "password": "likes-lamps", "name": name});
    shop.api.ask(Method::POST, "/auth/register").json(&body).send().await.expect_status(201);
}

/// The six digits in a text.
fn code_in(text: &str) -> String {
    let digits = |word: &&str| word.len() == 6 && word.bytes().all(|byte| byte.is_ascii_digit());
    text.split_whitespace().find(digits).expect("a code").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_text_wherever_it_stands() {
    let sink = Sink::start().await;
    let shop = open(&sink, |_| {}).await;
    register(&shop, "ann@example.org", "Ann <script>alert(1)</script> & Söhne").await;
    let mail = arrival(&sink, "ann@example.org", "Confirm your address").await;
    assert_eq!(mail.header("To"), "ann@example.org");
    assert_eq!(mail.header("From"), "Storekeeper <shop@localhost>");
    let (plain, html) = parts(&mail);
    assert!(plain.contains("Hello Ann <script>alert(1)</script> & Söhne,"), "{plain}");
    assert!(html.contains("Ann &lt;script&gt;alert(1)&lt;&#x2f;script&gt; &amp; Söhne"), "{html}");
    assert!(!html.contains("<script"), "{html}");

    // The code works, so the mail has arrived whole; the one for a new password comes the same way.
    let verify = json!({"email": "ann@example.org", "code": code_in(&plain)});
    shop.api.ask(Method::POST, "/auth/verify-email").json(&verify).send().await.expect_status(200);
    let forgot = json!({"email": "ann@example.org"});
    shop.api.ask(Method::POST, "/auth/forgot-password").json(&forgot).send().await.expect_status(202);
    let (plain, html) = parts(&arrival(&sink, "ann@example.org", "Set a new password").await);
    let code = code_in(&plain);
    assert!(html.contains(&code), "{html}");
    let reset = json!({"email": "ann@example.org", "code": code, "password": "likes-lamps-more"});
    shop.api.ask(Method::POST, "/auth/reset-password").json(&reset).send().await.expect_status(200);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_confirmed_with_its_lines_and_totals() {
    let sink = Sink::start().await;
    let shop = open(&sink, |_| {}).await;
    let (lamp, shade) = (shop.api.item("49.90", 10).await, shop.api.item("5.05", 10).await);
    let buyer: Buyer = shop.buyer().await;
    let cart = shop.api.cart_with(&lamp, 2).await;
    shop.api.add(Some(&cart), &shade, 3).send().await.expect_status(200);
    let order = shop.api.checkout(&buyer, &cart).send().await.expect_status(201).text("id");

    let mail = arrival(&sink, &buyer.email, &order).await;
    let (plain, html) = parts(&mail);
    for wanted in ["2 x A thing", "at 49.90: 99.80 USD", "3 x A thing", "at 5.05: 15.15 USD", "Total:    114.95 USD"] {
        assert!(plain.contains(wanted), "{wanted} in {plain}");
    }
    for wanted in ["2 &times; A thing", "99.80 USD", "3 &times; A thing", "15.15 USD", "<strong>114.95 USD</strong>"] {
        assert!(html.contains(wanted), "{wanted} in {html}");
    }
    assert!(mail.header("Message-ID").ends_with("@localhost>"), "{}", mail.header("Message-ID"));

    // Each further step is mailed too.
    let confirm = json!({"status": "CONFIRMED", "paymentReference": "pay-77"});
    let path = format!("/orders/{order}/status");
    shop.api.ask_as_admin(Method::PUT, &path).json(&confirm).send().await.expect_status(200);
    let (plain, _) = parts(&arrival(&sink, &buyer.email, "is confirmed").await);
    assert!(plain.contains("pay-77"), "{plain}");
    for mail in mails(&shop.api).await {
        until_it_is(&shop.api, mail["id"].as_str().expect("an id"), "SENT").await;
    }
    assert_eq!(sink.arrived().len(), 2);
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_mail_gets_a_header_or_a_recipient_of_the_senders_making() {
    let sink = Sink::start().await;
    let shop = open(&sink, |_| {}).await;
    let mail = json!({"recipient": "ann@example.org", "subject": "Hello", "body": "x", "source": "support"});
    for (member, evil) in [
        ("subject", "Hello\r\nBcc: all@example.org"),
        ("recipient", "ann@example.org\r\nBcc: all@example.org"),
        ("recipient", "ann@example.org>\r\nRCPT TO:<all@example.org"),
        ("sender", "Ann\r\nBcc: all@example.org <ann@example.org>"),
    ] {
        let mut mail = mail.clone();
        mail[member] = json!(evil);
        shop.api.ask_as_admin(Method::POST, "/emails/send").json(&mail).send().await.expect_status(400);
    }
    // A text may have any lines, also such as end a mail.
    let mut mail = mail.clone();
    mail["body"] = json!("x\r\n.\r\nMAIL FROM:<a@example.org>\n.\n..\nend");
    let sent = shop.api.ask_as_admin(Method::POST, "/emails/send").json(&mail).send().await.expect_status(202);
    until_it_is(&shop.api, &sent.text("id"), "SENT").await;
    let arrived = sink.arrived();
    assert_eq!((arrived.len(), sink.recipients()), (1, 1));
    let text = arrived[0].text.trim_end();
    assert!(text.ends_with("\r\n\r\nx\r\n.\r\nMAIL FROM:<a@example.org>\r\n.\r\n..\r\nend"), "{text}");
    assert_eq!(arrived[0].header("Bcc"), "");
    shop.stop().await;
}
