//! Where traces are sent: the settings of OpenTelemetry's exporters that this program knows.

use std::collections::HashMap;

use actix_web::http::header::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use url::Url;

use super::reader::Reader;
use super::settings;

/// Where traces are sent. It has no `Debug`, since headers may hold a secret.
#[derive(Clone)]
pub struct TraceConfig {
    /// The whole address of the collector's intake.
    pub endpoint: Url,
    /// Headers to send along.
    pub headers: HashMap<String, String>,
    /// What traces call this program.
    pub service_name: String,
    /// The share of the requests that is traced, 0 to 1.
    pub share: f64,
}

/// Reads where traces are sent, which may be nowhere. The outer `None` is a fault.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Option<Box<TraceConfig>>> {
    let name = reader.read(&settings::OTEL_SERVICE_NAME, "a name", |text| Some(text.to_owned()));
    let share = reader.read(&settings::OTEL_TRACES_SAMPLER_ARG, "a decimal from 0 to 1, such as 0.1", |text| {
        text.parse().ok().filter(|share| (0.0..=1.0).contains(share))
    });
    let headers = match reader.given(settings::OTEL_EXPORTER_OTLP_HEADERS.name) {
        Some(_) => reader.read(&settings::OTEL_EXPORTER_OTLP_HEADERS, "name=value,name=value", headers),
        None => Some(HashMap::new()),
    };
    if reader.given(settings::OTEL_EXPORTER_OTLP_ENDPOINT.name).is_none() {
        return (name.is_some() && share.is_some() && headers.is_some()).then_some(None);
    }
    let right = "the address of a collector, such as http://localhost:4318";
    let endpoint = reader.read(&settings::OTEL_EXPORTER_OTLP_ENDPOINT, right, intake);
    let config = TraceConfig { endpoint: endpoint?, headers: headers?, service_name: name?, share: share? };
    Some(Some(Box::new(config)))
}

/// Where a collector takes traces.
fn intake(collector: &str) -> Option<Url> {
    let mut url = Url::parse(collector).ok()?;
    let plain = matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none();
    let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
    url.set_path(&path);
    plain.then_some(url)
}

/// Headers as OpenTelemetry writes them: `name=value,name=value`, the values percent-encoded.
fn headers(text: &str) -> Option<HashMap<String, String>> {
    let header = |part: &str| {
        let (name, value) = part.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        let name: HeaderName = name.trim().parse().ok()?;
        HeaderValue::from_str(&value).ok()?;
        Some((name.to_string(), value.into_owned()))
    };
    text.split(',').map(header).collect()
}
