//! How documents become answers, and answers that were kept are sent.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use serde::Serialize;
use serde::ser::Error;

use crate::persistence::records::StoredResponse;

const JSON: (HeaderName, HeaderValue) = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));

/// An answer with a JSON body.
pub(crate) fn json(status: StatusCode, document: &impl Serialize) -> HttpResponse {
    HttpResponse::build(status).insert_header(JSON).body(text(document))
}

/// A 200 with a JSON body.
pub(crate) fn ok(document: &impl Serialize) -> HttpResponse {
    json(StatusCode::OK, document)
}

/// A 201 with a JSON body, and where the new thing is.
pub(crate) fn created(document: &impl Serialize, location: String) -> HttpResponse {
    HttpResponse::Created().insert_header(JSON).insert_header((header::LOCATION, location)).body(text(document))
}

/// An answer in the form in which it is kept for when its request comes again.
pub(crate) fn stored(status: StatusCode, document: &impl Serialize) -> StoredResponse {
    StoredResponse { status: status.as_u16(), headers: Vec::new(), body: text(document) }
}

/// The answer that was kept, as it is sent.
pub(crate) fn send(answer: StoredResponse) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status).insert_header(JSON).body(answer.body);
    for (name, value) in &answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str())) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// A text alone: `{"message": …}`.
#[derive(Debug, Serialize)]
pub(crate) struct Message {
    /// What happened.
    pub message: &'static str,
}

/// Bytes of a common document: room for it is made once.
const DOCUMENT: usize = 512;

/// Our documents have text keys and finite numbers only, so writing them does not fail.
fn text(document: &impl Serialize) -> String {
    written(document).unwrap_or_else(|error| {
        tracing::error!(%error, "an answer could not be written");
        String::from("null")
    })
}

fn written(document: &impl Serialize) -> serde_json::Result<String> {
    let mut text = Vec::with_capacity(DOCUMENT);
    serde_json::to_writer(&mut text, document)?;
    String::from_utf8(text).map_err(serde_json::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_is_sent() {
        let mut kept = stored(StatusCode::CREATED, &Message { message: "done" });
        kept.headers.push(("Location".to_owned(), "/orders/1".to_owned()));
        let sent = send(kept.clone());
        assert_eq!(sent.status(), StatusCode::CREATED);
        assert_eq!(sent.headers().get("location").expect("a header"), "/orders/1");
        assert_eq!(kept.body, r#"{"message":"done"}"#);
    }
}
