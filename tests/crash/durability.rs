//! The order of the system calls: what is answered is on the disk before the first byte of the answer leaves.
//!
//! Killing a server does not show that: what a dead process had written is in the system's memory all the same. So
//! the server runs under strace, and the trace says when the log was synced and when the answer was sent.

use std::fs;
use std::path::Path;
use std::process::Command;

use reqwest::Method;
use serde_json::json;

use crate::client::{Ask, Client};
use crate::place::Place;
use crate::server::{self, Server, terminate};

/// What is traced: how a request comes, how the log is written and synced, how an answer goes.
const CALLS: &str = "trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,pwrite64,pwritev,fsync,fdatasync";
/// The file that SQLite writes ahead.
const LOG: &str = "storekeeper.sqlite-wal>";

#[tokio::test]
async fn a_commit_is_synced_before_its_answer_begins() {
    let place = Place::embedded();
    let trace = place.folder().join("trace");
    let mut strace = Command::new("strace");
    // -y shows what a descriptor is, -s how many bytes of what was read or written.
    strace.args(["-f", "-y", "-s", "64", "-e", "signal=none", "-e", CALLS, "-o"]).arg(&trace);
    strace.arg(env!("CARGO_BIN_EXE_storekeeper")).arg("serve");
    server::set(&mut strace, &place, &[]);
    strace.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let server = Server::of(strace, &place);

    let client = Client::of(&server);
    let token = client.sign_in().await;
    let (product, _) = client.product(&token, 1_999, 10).await;
    let add = Ask::new(Method::POST, "/cart/add-to-cart", json!({"productId": product, "quantity": 1}));
    let session = client.expect(200, &add).await.text("cartSessionId");
    let checkout = Ask::new(Method::POST, "/orders/checkout", json!({})).token(&token).cart(&session);
    client.expect(201, &checkout).await;
    drop(client);
    terminate(traced_by(&server));
    assert_eq!(server.wait().code(), Some(0));

    let trace = read(&trace);
    for request in ["POST /cart/add-to-cart", "POST /orders/checkout"] {
        if let Some(fault) = fault(&trace, request) {
            panic!("{fault}");
        }
    }
}

/// The process that strace has started.
fn traced_by(strace: &Server) -> u32 {
    let id = strace.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("strace has a child");
    children.trim().parse().unwrap_or_else(|error| panic!("strace has one child, not {children:?}: {error}"))
}

/// What is told of one moment: a call begins, or has come back.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// A request's first bytes are there.
    Request,
    /// The log is being written.
    LogWritten,
    /// The log is on the disk.
    LogSynced,
    /// The first byte of an answer is being sent.
    Answer,
}

/// A line of a trace, and what it tells. Where a thread's call was interrupted by another thread's, strace writes two
/// lines: `call(… <unfinished ...>` when it begins, `<... call resumed> … = result` when it comes back.
struct Line {
    text: String,
    event: Option<Event>,
}

/// The trace, every interrupted call with its beginning.
fn read(trace: &Path) -> Vec<Line> {
    let text = String::from_utf8_lossy(&fs::read(trace).expect("a trace")).into_owned();
    let mut interrupted = std::collections::HashMap::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let (thread, call) = line.split_once(' ').expect("a thread and its call");
        let call = call.trim_start();
        let begun = if let Some(begun) = call.strip_suffix("<unfinished ...>") {
            interrupted.insert(thread, begun);
            (begun, None)
        } else if call.starts_with("<...") {
            (interrupted.remove(thread).unwrap_or_default(), Some(call))
        } else {
            (call, Some(call))
        };
        lines.push(Line { text: line.to_owned(), event: event(begun.0, begun.1, call.starts_with("<...")) });
    }
    lines
}

/// What a call tells. A write tells when it begins, a read and a sync when they have come back.
fn event(begun: &str, returned: Option<&str>, resumed: bool) -> Option<Event> {
    let (name, _) = begun.split_once('(')?;
    let all = format!("{begun}{}", returned.filter(|_| resumed).unwrap_or_default());
    let done = returned.is_some_and(|call| call.trim_end().ends_with("= 0"));
    match name {
        "read" | "readv" | "recvfrom" | "recvmsg" if returned.is_some() && all.contains("\"POST /") => {
            Some(Event::Request)
        }
        "pwrite64" | "pwritev" | "write" | "writev" if begun.contains(LOG) && !resumed => Some(Event::LogWritten),
        "fsync" | "fdatasync" if begun.contains(LOG) && done => Some(Event::LogSynced),
        "write" | "writev" | "sendto" | "sendmsg" if begun.contains("\"HTTP/1.1 20") && !resumed => Some(Event::Answer),
        _ => None,
    }
}

/// Between a request and its answer the log is to be written, and then synced; gives what is wrong.
fn fault(trace: &[Line], request: &str) -> Option<String> {
    let come = trace.iter().position(|line| line.event == Some(Event::Request) && line.text.contains(request));
    let Some(come) = come else { return Some(format!("{request} is not in the trace")) };
    let answered = trace[come..].iter().position(|line| line.event == Some(Event::Answer));
    let Some(answered) = answered else { return Some(format!("{request} has no answer in the trace")) };
    let told: Vec<&Line> = trace[come..come + answered].iter().filter(|line| line.event.is_some()).collect();
    let written = told.iter().position(|line| line.event == Some(Event::LogWritten)).unwrap_or(told.len());
    let synced = told[written..].iter().any(|line| line.event == Some(Event::LogSynced));
    let lines = || told.iter().map(|line| format!("\n{}", line.text)).collect::<String>();
    (!synced).then(|| format!("{request} was answered before the log was written and synced:{}", lines()))
}

#[test]
fn a_trace_without_a_sync_in_time_is_found_out() {
    let trace = |lines: &[&str]| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(&file, lines.join("\n")).expect("written");
        read(file.path())
    };
    let come = r#"11 recvfrom(9<socket:[7]>, "POST /orders/checkout HTTP/1.1\r\n"..., 8192, 0, NULL, NULL) = 300"#;
    let write = r#"12 pwrite64(5</d/storekeeper.sqlite-wal>, "x"..., 4096, 32) = 4096"#;
    let sync = "12 fdatasync(5</d/storekeeper.sqlite-wal>) = 0";
    let answer = r#"11 sendto(9<socket:[7]>, "HTTP/1.1 201 Created\r\n"..., 99, MSG_NOSIGNAL, NULL, 0) = 99"#;
    let begins = "12 fdatasync(5</d/storekeeper.sqlite-wal> <unfinished ...>";
    let returns = "12 <... fdatasync resumed>)            = 0";
    let fails = "12 <... fdatasync resumed>)            = -1 EIO (Input/output error)";
    let other = "12 fdatasync(6</d/storekeeper.sqlite>) = 0";
    for good in [&[come, write, sync, answer][..], &[come, write, begins, returns, answer]] {
        assert_eq!(fault(&trace(good), "POST /orders/checkout"), None);
    }
    for bad in [
        &[come, write, answer, sync][..],
        &[come, sync, write, answer],
        &[come, write, begins, answer, returns],
        &[come, write, begins, fails, answer],
        &[come, write, other, answer],
        &[come, sync, answer],
    ] {
        assert!(fault(&trace(bad), "POST /orders/checkout").is_some(), "{bad:?}");
    }
}
