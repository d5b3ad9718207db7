//! `/metrics`, and what is measured of every request.
//!
//! A request is counted under the pattern of its route, which the route table notes while it looks for the handler
//! ([`MatchedRoute`]); a path is nobody's label. What counts it is kept by route, method and status, so that a request
//! costs a look into a map.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use actix_web::dev::ServiceRequest;
use actix_web::guard::{self, Guard};
use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpMessage, HttpResponse};

use crate::actors::command::AppliedOutcome;
use crate::observability::metrics::{Counter, Gauge, Histogram, Metrics};

use super::Answer;
use super::problem::Problem;
use super::state::State;

/// The format that [`Metrics::render`] writes.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The route of paths that are nobody's.
pub(super) const NO_ROUTE: &str = "none";
/// Methods that have names of their own as labels.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];

/// `GET /metrics`.
pub(crate) async fn show(state: State) -> Answer {
    let metrics = state.metrics.clone();
    let text = state.runtime.spawn_blocking(move || metrics.render()).await.map_err(|error| {
        tracing::error!(%error, "the metrics could not be written");
        Problem::internal(AppliedOutcome::No)
    })?;
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, TEXT_FORMAT))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(text))
}

/// The pattern of the route that a request has come to, known from before its handler begins.
#[derive(Clone, Default)]
pub(super) struct MatchedRoute(Rc<Cell<Option<&'static str>>>);

impl MatchedRoute {
    /// To be filled in by the route table.
    pub(super) fn await_in(request: &ServiceRequest) -> Self {
        let route = Self::default();
        request.extensions_mut().insert(route.clone());
        route
    }

    /// The pattern, or [`NO_ROUTE`].
    pub(super) fn pattern(&self) -> &'static str {
        self.0.get().unwrap_or(NO_ROUTE)
    }
}

/// Notes that a request has come to the route of this pattern.
pub(super) fn noting(pattern: &'static str) -> impl Guard {
    guard::fn_guard(move |context| {
        if let Some(MatchedRoute(route)) = context.req_data().get() {
            route.set(Some(pattern));
        }
        true
    })
}

/// The method as a label.
pub(super) fn label_of(method: &Method) -> &'static str {
    METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

/// A worker's way to what is measured of requests. The numbers are the same for all workers.
pub(crate) struct HttpMetrics {
    metrics: Metrics,
    in_flight: Gauge,
    answered: RefCell<HashMap<Kind, Measured>>,
}

/// Requests that are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    route: &'static str,
    method: &'static str,
    status: u16,
}

struct Measured {
    requests: Counter,
    duration: Histogram,
}

impl HttpMetrics {
    pub(crate) fn new(metrics: Metrics) -> Rc<Self> {
        let help = "Requests that are being answered.";
        let in_flight = metrics.gauge("storekeeper_http_requests_in_flight", help, &[]);
        Rc::new(Self { metrics, in_flight, answered: RefCell::default() })
    }

    /// A request has come; it is there until what this gives is dropped.
    pub(super) fn begin(&self) -> InFlight<'_> {
        self.in_flight.increment(1.0);
        InFlight(&self.in_flight)
    }

    /// A request was answered.
    pub(super) fn answered(&self, route: &'static str, method: &'static str, status: u16, elapsed: Duration) {
        let kind = Kind { route, method, status };
        self.answered.borrow_mut().entry(kind).or_insert_with(|| self.measure(kind)).note(elapsed);
    }

    fn measure(&self, kind: Kind) -> Measured {
        let status = kind.status.to_string();
        let labels = [("route", kind.route), ("method", kind.method), ("status", status.as_str())];
        Measured {
            requests: self.metrics.counter(
                "storekeeper_http_requests_total",
                "Requests that were answered, by the pattern of their route, their method and the status.",
                &labels,
            ),
            duration: self.metrics.histogram(
                "storekeeper_http_request_duration_seconds",
                "From the head of a request until its answer was at hand, by route and method.",
                &labels[..2],
            ),
        }
    }
}

impl Measured {
    fn note(&self, elapsed: Duration) {
        self.requests.increment(1);
        self.duration.record(elapsed);
    }
}

/// A request that is being answered.
pub(super) struct InFlight<'a>(&'a Gauge);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
