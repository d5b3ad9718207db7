//! The log as a program reads it, in a process of its own: the panic hook is the whole process's.

#![expect(clippy::expect_used, reason = "a test fails where it stands")]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use storekeeper::telemetry;
use tracing::field::Empty;
use tracing::subscriber::with_default;

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic while it is held").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Kept {
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().expect("no panic while it is held").clone()).expect("UTF-8");
        text.lines().map(str::to_owned).collect()
    }
}

const PLACE: u32 = line!() + 2;
fn fall_over(what: &str) {
    panic!("the {what} fell over");
}

#[test]
fn a_panic_is_one_line_with_its_text_and_place() {
    let kept = Kept::default();
    let writer = kept.clone();
    let subscriber = telemetry::subscriber("info", true, move || writer.clone()).expect("a filter");
    tracing::subscriber::set_global_default(subscriber).expect("nothing else logs");
    telemetry::log_panics();

    let thread = std::thread::Builder::new().name("storeroom".to_owned());
    let ended = thread.spawn(|| fall_over("shelf")).expect("a thread").join();
    // From here on a failing assertion shall speak for itself.
    drop(std::panic::take_hook());
    ended.expect_err("the thread panicked");

    let lines = kept.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let event: Value = serde_json::from_str(&lines[0]).expect("JSON");
    assert_eq!(event["level"], "ERROR");
    assert_eq!(event["message"], "panicked: the shelf fell over");
    assert_eq!(event["thread"], "storeroom");
    let place = event["place"].as_str().expect("a place");
    assert!(place.starts_with(&format!("tests/telemetry.rs:{PLACE}:")), "{place}");
}

/// What the log says of the span that a line is in.
fn told(work: impl FnOnce()) -> Value {
    let kept = Kept::default();
    let writer = kept.clone();
    with_default(telemetry::subscriber("info", true, move || writer.clone()).expect("a filter"), work);
    let lines = kept.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let mut event: Value = serde_json::from_str(&lines[0]).expect("JSON");
    event["span"].take()
}

#[test]
fn fields_of_all_kinds_are_members() {
    let span = told(|| {
        let path = "/a\"b\\c\n\u{1}/ä€";
        let span = tracing::info_span!(
            "request", id = "0-1", path, debugged = ?"q\"", shown = %7, below = -1_i64, above = u64::MAX, yes = true,
            half = 0.5, none = f64::NAN, empty = "", late = Empty
        );
        span.in_scope(|| tracing::info!("here"));
    });
    assert_eq!(
        span,
        json!({"name": "request", "id": "0-1", "path": "/a\"b\\c\n\u{1}/ä€", "debugged": "\"q\\\"\"", "shown": "7", "below": -1,
            "above": u64::MAX, "yes": true, "half": 0.5, "none": null, "empty": ""})
    );
}

#[test]
fn what_is_told_later_is_there_too_and_the_last_counts() {
    let span = told(|| {
        let span = tracing::info_span!("request", id = "1", trace = Empty, last = Empty);
        span.record("trace", "a\"b").record("last", 1).record("last", 2);
        span.in_scope(|| tracing::info!("here"));
    });
    assert_eq!(span, json!({"name": "request", "id": "1", "trace": "a\"b", "last": 2}));
}

#[test]
fn a_span_may_have_no_fields_at_first_or_at_all() {
    let told_of = |late: Option<i64>| {
        told(|| {
            let span = tracing::info_span!("work", late = Empty);
            late.inspect(|late| {
                span.record("late", late);
            });
            span.in_scope(|| tracing::info!("here"));
        })
    };
    assert_eq!(told_of(None), json!({"name": "work"}));
    assert_eq!(told_of(Some(3)), json!({"name": "work", "late": 3}));
}
