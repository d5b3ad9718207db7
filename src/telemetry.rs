//! What the program tells about itself while it runs: the log, and panics in it.
//!
//! The log goes to standard error, so that what a command answers on standard output stays clean.

use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};

use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::actors::supervision;
use crate::config::{LogConfig, LogFormat};

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter can not be read.
    #[error("the log's filter can not be read: {0}")]
    Filter(#[from] ParseError),
    /// Something else logs in this process.
    #[error("the log can not be started: {0}")]
    Taken(#[from] TryInitError),
}

/// Starts the log of this process, panics included. To be called once, by `main`.
///
/// # Errors
/// [`TelemetryError`] when the filter is wrong or the process logs already.
pub fn start(log: &LogConfig) -> Result<(), TelemetryError> {
    let json = match log.format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    subscriber(&log.filter, json, io::stderr)?.try_init()?;
    log_panics();
    Ok(())
}

/// What writes the log: a line an event, as text or as JSON.
///
/// # Errors
/// [`ParseError`] when the filter can not be read.
pub fn subscriber<W>(filter: &str, json: bool, writer: W) -> Result<Box<dyn Subscriber + Send + Sync>, ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let registry = tracing_subscriber::registry().with(EnvFilter::try_new(filter)?);
    Ok(if json {
        // Fields stand beside the message, where programs that read logs look for them.
        Box::new(registry.with(fmt::layer().json().flatten_event(true).with_writer(writer)))
    } else {
        Box::new(registry.with(fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(writer)))
    })
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
