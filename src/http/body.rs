//! Request bodies: read whole up to a limit, then taken apart into members without copying them.

use std::borrow::Cow;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::web::{Bytes, BytesMut, Payload};
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::{Fields, Given};
use super::problem::{Code, Problem};

/// Bytes of a body, at most.
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a too large body that are read and thrown away, so that its sender hears the answer.
const DISCARDED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long a client may take to send its body.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// A whole body, and what its sender says it is.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    bytes: Bytes,
    is_json: bool,
}

impl Body {
    /// Reads a request's body.
    ///
    /// # Errors
    /// 413 when it is larger than [`BODY_BYTES_MAX`], 408 when it takes too long, 400 when it ends early.
    pub(crate) async fn read(request: &HttpRequest, payload: Payload) -> Result<Self, Problem> {
        let is_json = is_json(request);
        match tokio::time::timeout(BODY_TIME_MAX, collect(payload)).await {
            Ok(bytes) => bytes.map(|bytes| Self { bytes, is_json }),
            Err(_) => Err(Problem::new(Code::RequestTimeout, "the body did not arrive in time")),
        }
    }

    /// The bytes as they came.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The members of the object that the body must be.
    ///
    /// # Errors
    /// 415 when the content type is another than JSON, 400 when it is no JSON or no object.
    pub(crate) fn fields(&self) -> Result<Fields<'_>, Problem> {
        if self.bytes.is_empty() {
            return Err(Problem::new(Code::MalformedJson, "the body is empty; it must be a JSON object"));
        }
        if !self.is_json {
            return Err(Problem::new(
                Code::UnsupportedMediaType,
                "the body must be JSON, with the header Content-Type: application/json",
            ));
        }
        parse_object(&self.bytes)
    }

    /// The same for routes that need no body: an empty one has no members.
    ///
    /// # Errors
    /// As [`fields`](Self::fields).
    pub(crate) fn fields_if_any(&self) -> Result<Fields<'_>, Problem> {
        if self.bytes.is_empty() { Ok(Fields::new(Vec::new())) } else { self.fields() }
    }
}

async fn collect(mut payload: Payload) -> Result<Bytes, Problem> {
    let Some(first) = payload.next().await else { return Ok(Bytes::new()) };
    let first = first.map_err(broken)?;
    let Some(second) = payload.next().await else {
        return if first.len() > BODY_BYTES_MAX { Err(too_large()) } else { Ok(first) };
    };
    let mut bytes = BytesMut::from(first.as_ref());
    bytes.extend_from_slice(&second.map_err(broken)?);
    let mut length = bytes.len();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(broken)?;
        length += chunk.len();
        if length > DISCARDED_BYTES_MAX {
            break;
        }
        if length <= BODY_BYTES_MAX {
            bytes.extend_from_slice(&chunk);
        }
    }
    if length > BODY_BYTES_MAX { Err(too_large()) } else { Ok(bytes.freeze()) }
}

fn too_large() -> Problem {
    Problem::new(Code::BodyTooLarge, "a body has 1 MiB (1048576 bytes) at most").with("limit", &BODY_BYTES_MAX)
}

fn broken(error: PayloadError) -> Problem {
    tracing::debug!(%error, "a body broke off");
    Problem::new(Code::BadRequest, "the body can not be read to its end")
}

fn is_json(request: &HttpRequest) -> bool {
    let given = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || (essence.len() > 5 && essence.is_ascii() && essence[essence.len() - 5..].eq_ignore_ascii_case("+json"))
}

/// The members of a JSON object.
pub(crate) fn parse_object(bytes: &[u8]) -> Result<Fields<'_>, Problem> {
    match serde_json::from_slice::<Object<'_>>(bytes) {
        Ok(object) => Ok(Fields::new(object.0)),
        Err(error) if error.is_data() && serde_json::from_slice::<IgnoredAny>(bytes).is_ok() => {
            Err(Problem::new(Code::ValidationFailed, "the body must be a JSON object"))
        }
        Err(error) => Err(Problem::new(
            Code::MalformedJson,
            format!("the body is not JSON: it breaks at line {}, column {}", error.line(), error.column()),
        )),
    }
}

/// The members of an object, borrowed from its text.
struct Object<'a>(Vec<(Cow<'a, str>, Given<'a>)>);

/// A member's name: borrowed unless it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some((name, value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    members.push((name.0, Given::Json(value)));
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use actix_web::FromRequest;
    use actix_web::test::TestRequest;

    use super::*;

    async fn read(request: TestRequest) -> Result<Body, Problem> {
        let (request, mut payload) = request.to_http_parts();
        let payload = Payload::from_request(&request, &mut payload).await.expect("a payload");
        Body::read(&request, payload).await
    }

    fn code<T>(result: Result<T, Problem>) -> Code {
        match result {
            Ok(_) => panic!("it was accepted"),
            Err(problem) => problem.code(),
        }
    }

    #[actix_web::test]
    async fn a_body_up_to_the_limit_is_read_and_one_byte_more_is_not() {
        let json = || TestRequest::post().insert_header(("content-type", "application/json"));
        let body = read(json().set_payload(vec![b' '; BODY_BYTES_MAX])).await.expect("fits");
        assert_eq!(body.bytes().len(), BODY_BYTES_MAX);
        assert_eq!(code(read(json().set_payload(vec![b' '; BODY_BYTES_MAX + 1])).await), Code::BodyTooLarge);
    }

    #[actix_web::test]
    async fn only_json_is_taken() {
        let typed = |kind: &'static str| TestRequest::post().insert_header(("content-type", kind)).set_payload("{}");
        for kind in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
            assert!(read(typed(kind)).await.expect("read").fields().is_ok(), "{kind}");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "json", "", "é+json"] {
            let body = read(typed(kind)).await.expect("read");
            assert_eq!(code(body.fields()), Code::UnsupportedMediaType, "{kind}");
        }
    }

    #[actix_web::test]
    async fn no_body_is_fine_only_where_none_is_needed() {
        let body = read(TestRequest::post()).await.expect("read");
        assert!(body.fields_if_any().is_ok());
        assert_eq!(code(body.fields()), Code::MalformedJson);
    }

    #[test]
    fn broken_json_and_other_json_are_told_apart() {
        for broken in ["{", "{\"a\":}", "{'a':1}", "nul", "{\"a\":1}x", "{\"a\":1", "[1,", "\u{feff}{}", "{\"a\":01}"] {
            assert_eq!(code(parse_object(broken.as_bytes())), Code::MalformedJson, "{broken}");
        }
        assert_eq!(code(parse_object(b"{\"a\":\"\xff\"}")), Code::MalformedJson);
        for other in ["[]", "1", "\"a\"", "null", "true", "[{}]"] {
            assert_eq!(code(parse_object(other.as_bytes())), Code::ValidationFailed, "{other}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse_object(deep.as_bytes()).is_ok(), "an unknown member is skipped whatever is in it");
    }
}
