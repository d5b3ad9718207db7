//! Every route, each field missing, of the wrong type, too long, negative, zero, 1.5, 2^63: 400 with each bad field
//! named, and nothing changed. Unknown ids: 404.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::app::Reply;
use crate::routes::{Field, Kind, Route, Shop};

const UNKNOWN: &str = "0192aaaa-0000-7000-8000-000000000001";
const TWO_TO_63: &str = "9223372036854775808";

/// Values, as JSON texts, that are wrong for a field of this kind.
fn bad_values(kind: Kind) -> Vec<String> {
    let texts = |texts: &[&str]| texts.iter().map(|text| json!(text).to_string()).collect::<Vec<_>>();
    let long = |characters: usize| json!("é".repeat(characters)).to_string();
    let mut bad: Vec<String> = ["true", "[]"].map(str::to_owned).to_vec();
    let no_text = ["0", "-1", "1.5", TWO_TO_63].map(str::to_owned);
    match kind {
        Kind::Line(min, max) | Kind::Lines(min, max) => {
            bad.extend(no_text);
            bad.extend(texts(&["a\u{0}bc", "\u{7}abc"]));
            bad.push(long(max + 1));
            bad.extend((min > 0).then(|| long(min - 1)));
            bad.extend(matches!(kind, Kind::Line(..)).then(|| json!("ab\ncd").to_string()));
        }
        Kind::Secret(min, max) => {
            bad.extend(no_text);
            bad.extend([long(min - 1), long(max + 1)]);
        }
        Kind::Integer(min, max) => {
            bad.extend(["-1", "1.5", "1.0", "1e2", TWO_TO_63, "\"1\"", "\"\"", "{}"].map(str::to_owned));
            bad.push((max + 1).to_string());
            bad.extend((min > 0).then(|| "0".to_owned()));
        }
        Kind::Money => {
            bad.extend(["-1", "-0.01", "1.555", "1e2", TWO_TO_63, "\"1\"", "{}", "\"\""].map(str::to_owned));
        }
        Kind::Name => {
            bad.extend(no_text);
            bad.extend(texts(&["", "NONE", "confirmed", "CONFIRMED "]));
        }
        Kind::Id => {
            bad.extend(no_text);
            bad.extend(texts(&["", "17", "0192aaaa-0000-7000-8000-00000000000g"]));
            bad.push(long(300));
        }
        Kind::Email | Kind::Sender => {
            bad.extend(no_text);
            bad.extend(texts(&["", "ann", "@example.org", "ann@", "a b@example.org", "ann@example.org\r\nBcc: x@y"]));
            bad.push(json!(format!("{}@example.org", "a".repeat(300))).to_string());
        }
        Kind::Address => {
            bad.extend(no_text);
            bad.extend([long(0), long(1001), json!({"a": "a".repeat(4096)}).to_string()]);
        }
        Kind::Session => bad.extend(no_text),
    }
    bad
}

/// A body with some members put in place of its own; `None` leaves one out.
fn body_with(body: &Value, changes: &[(&str, Option<&str>)]) -> String {
    let members: &Map<String, Value> = body.as_object().expect("an object");
    let mut written: Vec<String> = Vec::new();
    for (name, value) in members {
        match changes.iter().find(|(changed, _)| changed == name) {
            None => written.push(format!("{}:{value}", json!(name))),
            Some((_, Some(value))) => written.push(format!("{}:{value}", json!(name))),
            Some((_, None)) => {}
        }
    }
    format!("{{{}}}", written.join(","))
}

async fn sent(shop: &Shop, route: &Route, body: String) -> Reply {
    shop.ask(route, &route.path).raw(body).send().await
}

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_field_of_every_body_is_named_and_nothing_changes() {
    let shop = Shop::start().await;
    let before = shop.everything().await;
    for route in shop.routes() {
        let Some(body) = &route.body else { continue };
        assert_eq!(
            set(route.fields.iter().map(|field| field.name)),
            set(body.as_object().expect("an object").keys().map(String::as_str)),
            "{}",
            route.name()
        );
        for Field { name, kind, required } in &route.fields {
            for bad in bad_values(*kind) {
                let reply = sent(&shop, &route, body_with(body, &[(name, Some(&bad))])).await;
                assert_eq!(reply.status, 400, "{} {name} = {bad:.80}: {}", route.name(), reply.text);
                assert_eq!(reply.bad_fields(), set([*name]), "{} {name} = {bad:.80}", route.name());
            }
            if *required {
                for missing in [None, Some("null")] {
                    let reply = sent(&shop, &route, body_with(body, &[(name, missing)])).await;
                    assert_eq!(reply.bad_fields(), set([*name]), "{} without {name}", route.name());
                }
            }
        }
    }
    shop.is_as_it_was(before).await;
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_bad_fields_of_a_body_are_named_at_once() {
    let shop = Shop::start().await;
    let before = shop.everything().await;
    for route in shop.routes() {
        let Some(body) = &route.body else { continue };
        let all: Vec<_> = route.fields.iter().map(|field| (field.name, Some("[]"))).collect();
        let reply = sent(&shop, &route, body_with(body, &all)).await;
        assert_eq!(reply.bad_fields(), set(route.fields.iter().map(|field| field.name)), "{}", route.name());
        let needed = set(route.fields.iter().filter(|field| field.required).map(|field| field.name));
        if !needed.is_empty() {
            assert_eq!(sent(&shop, &route, "{}".to_owned()).await.bad_fields(), needed, "{}", route.name());
        }
    }
    shop.is_as_it_was(before).await;
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_parameter_of_every_query_is_named() {
    let shop = Shop::start().await;
    for route in shop.routes() {
        for (name, values) in &route.query {
            for bad in *values {
                let reply = shop.ask(&route, &format!("{}?{name}={bad}", route.path)).send().await;
                assert_eq!(reply.status, 400, "{} {name}={bad}: {}", route.name(), reply.text);
                assert_eq!(reply.bad_fields(), set([*name]), "{} {name}={bad}", route.name());
            }
        }
        if let [(first, bad), (second, worse), ..] = route.query.as_slice() {
            let path = format!("{}?{first}={}&{second}={}", route.path, bad[0], worse[0]);
            assert_eq!(shop.ask(&route, &path).send().await.bad_fields(), set([*first, *second]), "{path}");
        }
    }
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_malformed_ids_in_paths_are_404() {
    let shop = Shop::start().await;
    let before = shop.everything().await;
    for route in shop.routes() {
        let Some((known, code)) = &route.unknown else { continue };
        for id in [UNKNOWN, "17", "%00", "x%20y", &"a".repeat(500)] {
            let ask = shop.ask(&route, &route.path.replace(known, id));
            let ask = if let Some(body) = &route.body { ask.json(body) } else { ask };
            let reply = ask.send().await;
            assert_eq!(reply.status, 404, "{} with {id:.20}: {}", route.name(), reply.text);
            reply.problem(404, code);
        }
    }
    shop.is_as_it_was(before).await;
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_json_object_is_refused_on_every_route_with_a_body() {
    let shop = Shop::start().await;
    let before = shop.everything().await;
    for route in shop.routes() {
        let Some(body) = &route.body else { continue };
        for broken in ["{", "{\"a\":", "not json", "{'a':1}", "{\"a\":1}}", "[1"] {
            let reply = sent(&shop, &route, broken.to_owned()).await;
            assert_eq!(reply.status, 400, "{}: {}", route.name(), reply.text);
            reply.problem(400, "malformed_json");
        }
        for other in ["[]", "1", "null", "\"text\"", "[{}]"] {
            sent(&shop, &route, other.to_owned()).await.problem(400, "validation_failed");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded"] {
            let ask = shop.ask(&route, &route.path).typed(kind, &body.to_string());
            ask.send().await.problem(415, "unsupported_media_type");
        }
    }
    shop.is_as_it_was(before).await;
    shop.app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_2_megabytes_is_refused_with_and_without_a_length() {
    let shop = Shop::start().await;
    let before = shop.everything().await;
    for route in shop.routes().into_iter().filter(|route| route.method != reqwest::Method::GET) {
        let large = vec![b' '; 2 * 1024 * 1024];
        shop.ask(&route, &route.path).raw(large).send().await.problem(413, "body_too_large");
        let answer =
            shop.app.send_without_length(&route.method, &route.path, shop.token(&route), 2 * 1024 * 1024).await;
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("body_too_large"), "{}: {answer}", route.name());
    }
    shop.is_as_it_was(before).await;
    shop.app.stop().await;
}
