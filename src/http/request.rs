//! What happens around every request: it gets its id, its log line, and where it fails its problem body; it is counted
//! and timed; a panic in a handler becomes an answer too.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Instant;

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{HttpResponse, ResponseError};
use futures_util::FutureExt;
use tracing::field::Empty;
use tracing::{Instrument, Span};
use uuid::Uuid;

use crate::actors::command::AppliedOutcome;
use crate::observability::trace::{self, Exported, TRACEPARENT};

use super::metrics::{HttpMetrics, MatchedRoute, NO_ROUTE, label_of};
use super::problem::{Code, Problem};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of an id that a client may choose.
const REQUEST_ID_CHARACTERS_MAX: usize = 128;

/// The middleware round all routes.
pub(crate) async fn observe(
    metrics: Rc<HttpMetrics>,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let started = Instant::now();
    let _in_flight = metrics.begin();
    let (method, route) = (label_of(request.method()), MatchedRoute::await_in(&request));
    let id = request_id(request.headers().get(&REQUEST_ID));
    let shown = id.to_str().unwrap_or_default();
    let (span, exported) = span_of(&request, shown);
    let answered = AssertUnwindSafe(next.call(request).instrument(span.clone())).catch_unwind().await;
    let _entered = span.enter();
    let unhandled = || Unhandled { instance: shown.to_owned() };
    let answered = match answered {
        Ok(Ok(response)) => Ok(explained(response, shown)),
        Ok(Err(error)) => {
            tracing::error!(%error, "a request failed outside of its handler");
            Err(unhandled())
        }
        Err(_) => {
            tracing::error!("a handler panicked");
            Err(unhandled())
        }
    };
    let status = answered.as_ref().map_or_else(ResponseError::status_code, ServiceResponse::status).as_u16();
    let elapsed = started.elapsed();
    metrics.answered(route.pattern(), method, status, elapsed);
    if let Some(exported) = exported {
        tell_trace(&exported, method, route.pattern(), status);
    }
    let latency_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    // What went wrong on our side was logged where it did; this line tells of every request, who wants it.
    tracing::debug!(status, latency_us, "answered");
    let mut response = answered?;
    response.headers_mut().insert(REQUEST_ID, id);
    Ok(response)
}

/// The span that a request is answered in, at the highest level, so that whatever is logged within has the request's id.
/// It continues the trace that the client names.
fn span_of(request: &ServiceRequest, id: &str) -> (Span, Option<Exported>) {
    let (method, path) = (request.method(), request.path());
    if !trace::is_exporting() {
        return (tracing::error_span!("request", id, %method, path), None);
    }
    let span = tracing::error_span!("request", id, %method, path, trace_id = Empty, otel.kind = "server");
    if let Some(place) = request.headers().get(TRACEPARENT).and_then(|place| place.to_str().ok()) {
        trace::set_parent(&span, place);
    }
    let exported = Exported::of(&span);
    if let Some(exported) = &exported {
        span.record("trace_id", exported.trace_id());
        exported.tell("url.path", path.to_owned());
    }
    (span, exported)
}

/// What OpenTelemetry's conventions ask of a server's span, when the answer is known.
fn tell_trace(exported: &Exported, method: &'static str, route: &'static str, status: u16) {
    exported.tell("http.request.method", method);
    exported.tell("http.response.status_code", i64::from(status));
    if route == NO_ROUTE {
        exported.name(method.to_owned());
    } else {
        exported.name(format!("{method} {route}"));
        exported.tell("http.route", route);
    }
    if status >= 500 {
        exported.fail();
    }
}

/// The client's id when it is 1 to 128 visible ASCII characters, else a new one.
fn request_id(given: Option<&HeaderValue>) -> HeaderValue {
    let sane = |value: &&HeaderValue| {
        (1..=REQUEST_ID_CHARACTERS_MAX).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    match given.filter(sane) {
        Some(given) => given.clone(),
        None => {
            let mut text = Uuid::encode_buffer();
            let text = Uuid::now_v7().hyphenated().encode_lower(&mut text);
            HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-"))
        }
    }
}

/// The answer, with a problem's body where it is an error.
fn explained(response: ServiceResponse<BoxBody>, instance: &str) -> ServiceResponse<BoxBody> {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let problem = response.response().error().and_then(|error| error.as_error::<Problem>());
    let written = match problem {
        Some(problem) => problem.response(instance),
        // No handler made it: it is the route table's own.
        None => {
            let mut problem = of_status(status);
            if let Some(allowed) = response.headers().get(header::ALLOW) {
                problem = problem.header(header::ALLOW, allowed.clone());
            }
            problem.response(instance)
        }
    };
    let (request, _) = response.into_parts();
    ServiceResponse::new(request, written)
}

fn of_status(status: StatusCode) -> Problem {
    match status {
        StatusCode::NOT_FOUND => Problem::new(Code::NotFound, "there is nothing at this path"),
        StatusCode::METHOD_NOT_ALLOWED => {
            Problem::new(Code::MethodNotAllowed, "this path takes other methods; the header Allow names them")
        }
        other if other.is_client_error() => Problem::new(Code::BadRequest, "the request can not be read"),
        other => {
            tracing::error!(status = other.as_u16(), "an answer without a reason");
            Problem::internal(AppliedOutcome::Unknown)
        }
    }
}

/// A request whose handler gave no answer, because it panicked.
#[derive(Debug)]
struct Unhandled {
    instance: String,
}

impl std::fmt::Display for Unhandled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request was not handled")
    }
}

impl ResponseError for Unhandled {
    fn status_code(&self) -> StatusCode {
        Code::Internal.status()
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = Problem::internal(AppliedOutcome::Unknown).response(&self.instance);
        if let Ok(id) = HeaderValue::from_str(&self.instance) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, init_service, try_call_service};
    use actix_web::{App, web};
    use serde_json::Value;

    use super::super::metrics::noting;
    use super::*;
    use crate::observability::metrics::Metrics;

    async fn refused() -> Result<HttpResponse, Problem> {
        Err(Problem::new(Code::InsufficientStock, "only 3 available").with("available", &3))
    }

    async fn panics() -> HttpResponse {
        panic!("for the test")
    }

    fn routes(config: &mut web::ServiceConfig) {
        config
            .service(web::resource("/refused").route(web::get().to(refused)).route(web::put().to(refused)))
            .service(web::resource("/panics").guard(noting("/panics")).route(web::get().to(panics)));
    }

    /// Asks an app with the middleware, and gives status, headers and body.
    async fn ask(request: TestRequest) -> (StatusCode, header::HeaderMap, Value) {
        ask_counting(request, Metrics::new().expect("numbers")).await
    }

    async fn ask_counting(request: TestRequest, metrics: Metrics) -> (StatusCode, header::HeaderMap, Value) {
        let metrics = HttpMetrics::new(metrics);
        let scope = web::scope("").wrap(from_fn(move |request, next| observe(Rc::clone(&metrics), request, next)));
        let app =
            init_service(App::new().service(scope.service(web::scope("/api").configure(routes)).configure(routes)));
        let response = match try_call_service(&app.await, request.to_request()).await {
            Ok(response) => response.into_parts().1,
            Err(error) => error.error_response(),
        };
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = to_bytes(response.into_body()).await.expect("a body");
        (status, headers, serde_json::from_slice(&bytes).expect("JSON"))
    }

    #[actix_web::test]
    async fn a_problem_carries_the_requests_id_under_both_prefixes() {
        for path in ["/refused", "/api/refused"] {
            let (status, headers, body) =
                ask(TestRequest::get().uri(path).insert_header(("X-Request-Id", "abc-1"))).await;
            assert_eq!(status, StatusCode::CONFLICT);
            assert_eq!((&body["instance"], &body["code"]), (&Value::from("abc-1"), &Value::from("insufficient_stock")));
            assert_eq!(body["available"], 3);
            assert_eq!(headers.get("x-request-id").expect("the id"), "abc-1");
        }
    }

    #[actix_web::test]
    async fn an_id_that_is_not_sane_is_replaced() {
        for bad in [" ", "a b", &"a".repeat(129)] {
            let (_, headers, body) = ask(TestRequest::get().uri("/refused").insert_header(("X-Request-Id", bad))).await;
            let id = headers.get("x-request-id").expect("an id").to_str().expect("ASCII");
            assert_eq!(id.parse::<Uuid>().expect("a UUID").get_version_num(), 7, "{bad}");
            assert_eq!(body["instance"], id);
        }
    }

    #[actix_web::test]
    async fn unknown_paths_and_methods_are_problems() {
        let (status, _, body) = ask(TestRequest::get().uri("/nowhere")).await;
        assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &Value::from("not_found")));
        for path in ["/refused", "/api/refused"] {
            let (status, headers, body) = ask(TestRequest::delete().uri(path)).await;
            assert_eq!((status, &body["code"]), (StatusCode::METHOD_NOT_ALLOWED, &Value::from("method_not_allowed")));
            assert_eq!(headers.get("allow").expect("the methods"), "GET, PUT");
        }
    }

    #[actix_web::test]
    async fn a_panic_is_an_answer() {
        let (status, headers, body) =
            ask(TestRequest::get().uri("/panics").insert_header(("X-Request-Id", "p-1"))).await;
        assert_eq!((status, &body["code"]), (StatusCode::INTERNAL_SERVER_ERROR, &Value::from("internal")));
        assert_eq!((&body["instance"], &body["applied"]), (&Value::from("p-1"), &Value::from("unknown")));
        assert_eq!(headers.get("x-request-id").expect("the id"), "p-1");
    }

    #[actix_web::test]
    async fn a_panic_is_counted_where_it_happened() {
        let metrics = Metrics::new().expect("numbers");
        ask_counting(TestRequest::get().uri("/panics"), metrics.clone()).await;
        let text = metrics.render();
        let line = "storekeeper_http_requests_total{route=\"/panics\",method=\"GET\",status=\"500\"} 1\n";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("\nstorekeeper_http_requests_in_flight 0\n"), "{text}");
    }
}
