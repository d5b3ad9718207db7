//! The numbers of one server, and their text for Prometheus.
//!
//! Each server of a process has numbers of its own. Whoever counts asks for a [`Counter`], [`Gauge`] or [`Histogram`]
//! once and keeps it: counting is then an addition or two. What is only worth knowing when somebody asks is looked at
//! just then: [`Metrics::when_rendered`].

use std::sync::{Arc, Mutex, PoisonError};

pub use ::metrics::{Counter, Gauge, Histogram};
use ::metrics::{Key, Label, Level, Metadata, Recorder};
pub use metrics_exporter_prometheus::BuildError;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::process::Process;

/// Upper bounds of how long things take, seconds.
const SECONDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Upper bounds of how many there are at once.
const COUNTS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0];

/// The names and values of labels. Their values are from a set that does not grow with use.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

type Look = Box<dyn Fn(&Metrics) + Send + Sync>;

/// The numbers of one server; clones are the same ones.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    looks: Mutex<Vec<Look>>,
    process: Process,
}

impl Metrics {
    /// No numbers but those of the process, and the program's version.
    ///
    /// # Errors
    /// None, as long as a histogram has bounds.
    pub fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
            .set_buckets(&COUNTS)?
            .build_recorder();
        let handle = recorder.handle();
        let process = Process::new(|name, help| gauge(&recorder, name, help, &[]));
        let build = [("version", env!("CARGO_PKG_VERSION"))];
        gauge(&recorder, "storekeeper_build_info", "Always 1; the label says which version runs.", &build).set(1.0);
        Ok(Self { inner: Arc::new(Inner { recorder, handle, looks: Mutex::default(), process }) })
    }

    /// A number that only grows. Its name ends with `_total`.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Counter {
        self.inner.recorder.describe_counter(name.into(), None, help.into());
        self.inner.recorder.register_counter(&key(name, labels), &METADATA)
    }

    /// A number that goes up and down.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Gauge {
        gauge(&self.inner.recorder, name, help, labels)
    }

    /// How many of what was measured were within each bound. A name that ends with `_seconds` has bounds from a
    /// millisecond to ten seconds, any other from 1 to 1,024.
    pub fn histogram(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Histogram {
        self.inner.recorder.describe_histogram(name.into(), None, help.into());
        self.inner.recorder.register_histogram(&key(name, labels), &METADATA)
    }

    /// Does `look` before each text that is written from now on: it sets numbers that are known elsewhere. It must
    /// neither wait nor ask for a text itself; it is given these metrics, of which it shall not keep a clone.
    pub fn when_rendered(&self, look: impl Fn(&Self) + Send + Sync + 'static) {
        self.inner.looks.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(look));
    }

    /// All numbers as text, in the format of Prometheus (version 0.0.4). It reads files of `/proc`.
    #[must_use]
    pub fn render(&self) -> String {
        for look in self.inner.looks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            look(self);
        }
        self.inner.process.look();
        self.inner.handle.render() + &self.inner.process.cpu()
    }

    /// Sorts what histograms were given into their bounds: to be called every few seconds, or it is kept one by one
    /// until somebody asks for the text.
    pub fn tidy(&self) {
        self.inner.handle.run_upkeep();
    }
}

/// Where a metric comes from, for recorders that choose by it; this one does not.
const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

fn key(name: &'static str, labels: Labels<'_>) -> Key {
    let labels: Vec<Label> = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(name, labels)
}

fn gauge(recorder: &PrometheusRecorder, name: &'static str, help: &'static str, labels: Labels<'_>) -> Gauge {
    recorder.describe_gauge(name.into(), None, help.into());
    recorder.register_gauge(&key(name, labels), &METADATA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_servers_of_a_process_have_numbers_of_their_own() {
        let (one, other) = (Metrics::new().expect("metrics"), Metrics::new().expect("metrics"));
        let counters = [&one, &other].map(|metrics| metrics.counter("things_total", "Things.", &[("kind", "a")]));
        counters[0].increment(3);
        counters[1].increment(1);
        assert!(one.render().contains("things_total{kind=\"a\"} 3\n"));
        assert!(other.render().contains("things_total{kind=\"a\"} 1\n"));
    }

    #[test]
    fn bounds_are_chosen_by_the_name() {
        let metrics = Metrics::new().expect("metrics");
        metrics.histogram("wait_seconds", "A wait.", &[]).record(0.3);
        metrics.histogram("load_entries", "A load.", &[]).record(3.0);
        metrics.tidy();
        let text = metrics.render();
        for line in [
            "wait_seconds_bucket{le=\"0.25\"} 0\n",
            "wait_seconds_bucket{le=\"0.5\"} 1\n",
            "load_entries_bucket{le=\"2\"} 0\n",
            "load_entries_bucket{le=\"4\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn who_is_asked_when_the_text_is_written_is_in_it() {
        let metrics = Metrics::new().expect("metrics");
        let gauge = metrics.gauge("shelves", "Shelves.", &[]);
        metrics.when_rendered(move |_| gauge.increment(1.0));
        assert!(metrics.render().contains("\nshelves 1\n"));
        assert!(metrics.render().contains("\nshelves 2\n"));
    }

    #[test]
    fn what_is_looked_at_goes_with_the_metrics() {
        let (metrics, store) = (Metrics::new().expect("metrics"), Arc::new(()));
        let looked_at = Arc::clone(&store);
        metrics
            .when_rendered(move |metrics| metrics.gauge("stores", "S.", &[]).set(Arc::strong_count(&looked_at) as f64));
        assert!(metrics.render().contains("\nstores 2\n"));
        drop(metrics);
        assert_eq!(Arc::strong_count(&store), 1);
    }
}
