//! Traces on their way to a collector: OTLP over HTTP, on a thread of its own.
//!
//! A span that has ended waits in a bounded queue; when that is full it is lost, and nobody waits. A collector that is
//! away or does not answer costs spans and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter as OtlpExporter};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanExporter,
};

use crate::config::TraceConfig;

/// Spans that may wait.
const QUEUE_MAX: usize = 8_192;
/// Spans of one request to the collector at most.
const BATCH_MAX: usize = 512;
/// How long a span waits for others at most.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// How long the collector may take to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// How long the end of the program waits for the last spans to be taken.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(3);

/// The traces of this process, which may be none.
pub struct Traces {
    provider: Option<SdkTracerProvider>,
}

impl Traces {
    /// There are no traces.
    pub(super) fn none() -> Self {
        Self { provider: None }
    }

    /// Begins to export.
    pub(super) fn start(config: &TraceConfig) -> Result<Self, ExporterBuildError> {
        let exporter = OtlpExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(config.endpoint.as_str())
            .with_headers(config.headers.clone())
            .with_timeout(ANSWER_TIME_MAX)
            .build()?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(WAIT_MAX)
            .build();
        let exporter = ToldExporter { exporter, is_failing: AtomicBool::new(false) };
        let resource = Resource::builder()
            .with_service_name(config.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.share))))
            .with_resource(resource)
            .build();
        Ok(Self { provider: Some(provider) })
    }

    /// What makes spans, if there are any.
    pub(super) fn tracer(&self) -> Option<SdkTracer> {
        self.provider.as_ref().map(|provider| provider.tracer(env!("CARGO_PKG_NAME")))
    }

    /// Sends the spans that wait, for three seconds at most, and ends. To be called outside of any runtime.
    pub fn stop(self) {
        if let Some(provider) = self.provider
            && let Err(error) = provider.shutdown_with_timeout(FLUSH_TIME_MAX)
        {
            tracing::warn!(%error, "the last spans may be lost");
        }
    }
}

/// An exporter that is told of in the log when it begins to fail, and when it works again.
#[derive(Debug)]
struct ToldExporter {
    exporter: OtlpExporter,
    is_failing: AtomicBool,
}

impl SpanExporter for ToldExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.exporter.export(batch).await;
        match (&exported, self.is_failing.swap(exported.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => tracing::warn!(%error, spans, "the collector takes no spans; they are lost"),
            (Ok(()), true) => tracing::info!(spans, "the collector takes spans again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
