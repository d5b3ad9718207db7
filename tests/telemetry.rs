//! The log as a program reads it, in a process of its own: the panic hook is the whole process's.

#![expect(clippy::expect_used, reason = "a test fails where it stands")]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use storekeeper::telemetry;

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
