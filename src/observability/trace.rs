//! Where a piece of work stands in a trace, in the form of W3C Trace Context: so that work which is handed on, in a
//! message or a row, stays in the trace of whoever caused it.
//!
//! Without an exporter there are no traces, and what is asked here costs a look at a flag.

use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Status, TraceContextExt};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The name under which Trace Context hands a place on.
pub const TRACEPARENT: &str = "traceparent";

/// Whether this process exports traces.
static EXPORTING: AtomicBool = AtomicBool::new(false);

/// From now on traces are exported: the layer that makes them is part of this process's log.
pub fn begin_exporting() {
    EXPORTING.store(true, Ordering::Relaxed);
}

/// Whether traces are exported.
#[must_use]
pub fn is_exporting() -> bool {
    EXPORTING.load(Ordering::Relaxed)
}

/// The place of the span that this code runs in, to be handed on: `00-<trace>-<span>-<flags>` in hexadecimal digits.
/// `None` without an exporter, and outside of all spans.
#[must_use]
pub fn current_traceparent() -> Option<String> {
    if !is_exporting() {
        return None;
    }
    let context = Span::current().context();
    let span = context.span();
    let place = span.span_context();
    let flags = if place.is_sampled() { "01" } else { "00" };
    place.is_valid().then(|| format!("00-{}-{}-{flags}", place.trace_id(), place.span_id()))
}

/// The span that this code runs in, to go with a message to whoever does the work. None where no traces are exported:
/// then nobody would see what is done under it.
#[must_use]
pub fn here() -> Span {
    if is_exporting() { Span::current() } else { Span::none() }
}

/// A step of the work that a span is about, as a span of its own; none when that is none.
macro_rules! step {
    ($of:expr, $name:literal $(, $($field:tt)+)?) => {{
        let of: &tracing::Span = $of;
        if of.is_none() { tracing::Span::none() } else { tracing::info_span!(parent: of, $name $(, $($field)+)?) }
    }};
}
pub(crate) use step;

/// Makes a new span, which nobody has entered yet, the child of the span at a place. A place that can not be read is as
/// good as none.
pub fn set_parent(span: &Span, traceparent: &str) {
    if !is_exporting() {
        return;
    }
    let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Handed(traceparent));
    if parent.span().span_context().is_valid() {
        // It fails for spans that are left out, which have no parent either.
        drop(span.set_parent(parent));
    }
}

/// A place that was handed over.
struct Handed<'a>(&'a str);

impl Extractor for Handed<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

/// A span that is going to be exported, to be told more of than its log lines need.
pub struct Exported(Context);

impl Exported {
    /// The span, if it is going to be exported. Its parent is settled by this.
    #[must_use]
    pub fn of(span: &Span) -> Option<Self> {
        if !is_exporting() {
            return None;
        }
        let context = span.context();
        let is_sampled = context.span().span_context().is_sampled();
        is_sampled.then_some(Self(context))
    }

    /// The trace that it is part of, 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.0.span().span_context().trace_id().to_string()
    }

    /// Names it.
    pub fn name(&self, name: String) {
        self.0.span().update_name(name);
    }

    /// Tells something of it, under a name of OpenTelemetry's semantic conventions.
    pub fn tell(&self, name: &'static str, value: impl Into<Value>) {
        self.0.span().set_attribute(KeyValue::new(name, value));
    }

    /// What it was about failed.
    pub fn fail(&self) {
        self.0.span().set_status(Status::error(""));
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing::subscriber::with_default;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const CALLER: &str = "00f067aa0ba902b7";

    /// Does something where traces are made.
    fn traced(work: impl FnOnce()) {
        begin_exporting();
        let tracer = SdkTracerProvider::builder().build().tracer("test");
        with_default(tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(tracer)), work);
    }

    #[test]
    fn a_place_that_was_handed_over_is_the_parents() {
        traced(|| {
            for flags in ["01", "00"] {
                let span = tracing::info_span!("work");
                set_parent(&span, &format!("00-{TRACE}-{CALLER}-{flags}"));
                let here = span.in_scope(current_traceparent).expect("a place");
                let parts: Vec<&str> = here.split('-').collect();
                assert_eq!((parts[0], parts[1], parts[3]), ("00", TRACE, flags), "{here}");
                assert!(parts[2].len() == 16 && parts[2] != CALLER, "{here}");
                assert_eq!(Exported::of(&span).map(|span| span.trace_id()), (flags == "01").then(|| TRACE.to_owned()));
            }
        });
    }

    #[test]
    fn what_is_within_is_in_the_same_trace() {
        traced(|| {
            let outer = tracing::info_span!("outer");
            set_parent(&outer, &format!("00-{TRACE}-{CALLER}-01"));
            let inner = outer.in_scope(|| tracing::info_span!("inner"));
            let (outer, inner) = (outer.in_scope(current_traceparent), inner.in_scope(current_traceparent));
            assert_ne!(outer, inner);
            assert!(inner.expect("a place").contains(TRACE));
        });
    }

    #[test]
    fn a_place_that_can_not_be_read_is_as_good_as_none() {
        traced(|| {
            for bad in ["", "nonsense", "00-0-0-01", &format!("00-{TRACE}-0000000000000000-01")] {
                let span = tracing::info_span!("work");
                set_parent(&span, bad);
                let here = span.in_scope(current_traceparent).expect("a place");
                assert!(!here.contains(TRACE), "{bad}: {here}");
            }
            assert_eq!(current_traceparent(), None, "outside of all spans");
        });
    }
}
