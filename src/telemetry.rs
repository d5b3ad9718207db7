//! What the program tells about itself while it runs: the log, panics in it, and traces.
//!
//! The log goes to standard error, so that what a command answers on standard output stays clean. Traces go to a
//! collector, when one is configured.

mod fields;
mod traces;

use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};

use opentelemetry_sdk::trace::SdkTracer;
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{EnvFilter, ParseError, Targets};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::actors::supervision;
use crate::config::{LogConfig, LogFormat, TraceConfig};
use crate::observability::trace;

use fields::JsonObject;
pub use traces::Traces;

/// Why nothing can be logged or traced.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter can not be read.
    #[error("the log's filter can not be read: {0}")]
    Filter(#[from] ParseError),
    /// Something else logs in this process.
    #[error("the log can not be started: {0}")]
    Taken(#[from] TryInitError),
    /// Traces can not be exported.
    #[error("traces can not be exported: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Starts the log of this process, panics included, and its traces. To be called once, by `main`, outside of any
/// runtime. What this gives is to be [stopped](Traces::stop) at the end.
///
/// # Errors
/// [`TelemetryError`] when the filter is wrong, the process logs already, or traces can not be exported.
pub fn start(log: &LogConfig, traces: Option<&TraceConfig>) -> Result<Traces, TelemetryError> {
    let json = match log.format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let traces = traces.map_or_else(|| Ok(Traces::none()), Traces::start)?;
    match traces.tracer() {
        None => subscriber(&log.filter, json, io::stderr)?.try_init()?,
        Some(tracer) => {
            exporting_subscriber(&log.filter, json, io::stderr, tracer)?.try_init()?;
            trace::begin_exporting();
        }
    }
    log_panics();
    Ok(traces)
}

/// What writes the log: a line an event, as text or as JSON.
///
/// # Errors
/// [`ParseError`] when the filter can not be read.
pub fn subscriber<W>(filter: &str, json: bool, writer: W) -> Result<Box<dyn Subscriber + Send + Sync>, ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (registry, general) = (tracing_subscriber::registry(), EnvFilter::try_new(filter)?);
    match by_targets(filter) {
        Some(simple) => Ok(Box::new(registry.with(simple).with(lines(json, writer)))),
        None => Ok(Box::new(registry.with(general).with(lines(json, writer)))),
    }
}

/// A filter of levels and targets alone, as most are: one that can tell spans apart looks at each as it is entered and left.
/// What `Targets` reads otherwise than `EnvFilter` (brackets, nothing between commas) is not for it.
fn by_targets(filter: &str) -> Option<Targets> {
    let is_plain = |part: &str| !part.trim().is_empty() && !part.contains(['[', '{']);
    if filter.split(',').all(is_plain) { filter.parse().ok() } else { None }
}

/// What writes the log and makes traces. The log's filter is the log's alone: traces have whatever this program's own
/// code tells at the level INFO and above.
fn exporting_subscriber<W>(
    filter: &str,
    json: bool,
    writer: W,
    tracer: SdkTracer,
) -> Result<Box<dyn Subscriber + Send + Sync>, ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let traces = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        .with_filter(Targets::new().with_target(env!("CARGO_PKG_NAME"), Level::INFO));
    let lines = lines(json, writer).with_filter(EnvFilter::try_new(filter)?);
    Ok(Box::new(tracing_subscriber::registry().with(traces).with(lines)))
}

fn lines<S, W>(json: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    if json {
        // Fields stand beside the message, where programs that read logs look for them.
        fmt::layer().json().flatten_event(true).fmt_fields(JsonObject).with_writer(writer).boxed()
    } else {
        fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(writer).boxed()
    }
}

/// From now on a panic anywhere is one line of the log, and nothing else.
pub fn log_panics() {
    panic::set_hook(Box::new(log_panic));
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    // What an actor dies of is logged by its supervisor, who knows more.
    if supervision::current().is_some() {
        return;
    }
    let message = panic.payload_as_str().unwrap_or("a panic without a text");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    tracing::error!(place, thread = thread.name().unwrap_or("unnamed"), "panicked: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_told_by_level_and_target_is_left_to_the_general_filter() {
        for plain in ["info", "warn,storekeeper=debug", "storekeeper::actors", "off", "error, sqlx=trace"] {
            assert!(by_targets(plain).is_some(), "{plain}");
        }
        for general in
            ["", "info,", "info,,sqlx=warn", "info,[request]=debug", "storekeeper[cart{key}]=debug", "[{id}]=trace"]
        {
            assert!(by_targets(general).is_none(), "{general}");
            EnvFilter::try_new(general).expect("a filter");
        }
    }
}
