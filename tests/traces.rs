//! Traces as a collector gets them from a server in a process of its own: which spans, of which trace, until when; and
//! that a collector which is away or silent costs nothing but spans.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails where it stands")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue as Attribute, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use tempfile::TempDir;

/// How long a test waits for what happens by itself.
const PATIENCE: Duration = Duration::from_secs(30);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// What a collector was sent with one request.
struct Sent {
    head: String,
    batch: ExportTraceServiceRequest,
}

impl Sent {
    /// What is said of the program that the spans are from.
    fn resource(&self, name: &str) -> Option<String> {
        let resource = self.batch.resource_spans.first()?.resource.as_ref()?;
        text(&resource.attributes, name)
    }

    fn spans(&self) -> impl Iterator<Item = &Span> {
        let scopes = self.batch.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| &scope.spans)
    }
}

/// The value of an attribute, as text.
fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref() {
        Some(Attribute { value: Some(AnyValue::StringValue(text)) }) => Some(text.clone()),
        Some(Attribute { value: Some(AnyValue::IntValue(number)) }) => Some(number.to_string()),
        other => panic!("{name} is {other:?}"),
    }
}

/// A collector: an HTTP server that takes spans.
struct Collector {
    address: String,
    sent: Receiver<Sent>,
}

impl Collector {
    /// One that takes what it is sent.
    fn taking() -> Self {
        Self::start(|connection| {
            connection
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")
                .is_ok()
        })
    }

    /// One that never says anything, for as long as the test lasts.
    fn silent() -> Self {
        let held = Mutex::new(Vec::new());
        Self::start(move |connection| {
            held.lock().expect("no panic").push(connection.try_clone().expect("a connection"));
            false
        })
    }

    /// `answer` says whether the connection goes on.
    fn start(answer: impl Fn(&mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("its address"));
        let (sender, sent) = channel();
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let (sender, answer) = (sender.clone(), Arc::clone(&answer));
                thread::spawn(move || serve(connection, &sender, &*answer));
            }
        });
        Self { address, sent }
    }

    /// The next request.
    fn next(&self) -> Sent {
        self.sent.recv_timeout(PATIENCE).expect("spans arrive")
    }

    /// All that has arrived, of a server that has ended.
    fn everything(&self) -> Vec<Sent> {
        self.sent.try_iter().collect()
    }
}

/// Reads requests until the connection ends.
fn serve(connection: TcpStream, sent: &Sender<Sent>, answer: &dyn Fn(&mut TcpStream) -> bool) {
    let mut reader = BufReader::new(connection);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse().expect("a length"))
        });
        let mut body = vec![0; length.expect("a length")];
        reader.read_exact(&mut body).expect("the body");
        let batch = ExportTraceServiceRequest::decode(body.as_slice()).expect("spans");
        // Sent before it is answered, so that a server which has its answer and ends has been heard.
        if sent.send(Sent { head, batch }).is_err() || !answer(reader.get_mut()) {
            return;
        }
    }
}

/// A server on an empty folder, which ends with the test.
struct Server {
    process: Child,
    _said: BufReader<ChildStdout>,
    base: String,
    log: PathBuf,
    _folder: TempDir,
}

impl Server {
    fn start(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let mut program = Command::new(env!("CARGO_BIN_EXE_storekeeper"));
        program.current_dir(&folder).env_clear().env("BIND", "127.0.0.1:0").env("LOG", "info,storekeeper=debug");
        let mut process = program
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a log"))
            .spawn()
            .expect("it starts");
        let mut said = BufReader::new(process.stdout.take().expect("its output"));
        let mut line = String::new();
        said.read_line(&mut line).expect("its output can be read");
        let base = line.split_once("http://").map(|(_, address)| format!("http://{}", address.trim()));
        let base = base.unwrap_or_else(|| panic!("{line}{}", fs::read_to_string(&log).unwrap_or_default()));
        Self { process, _said: said, base, log, _folder: folder }
    }

    /// Starts one that sends its spans to a collector.
    fn traced(collector: &str, settings: &[(&str, &str)]) -> Self {
        Self::start(&[&[("OTEL_EXPORTER_OTLP_ENDPOINT", collector)], settings].concat())
    }

    /// Asks for something; gives the status.
    async fn ask(&self, client: &reqwest::Client, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = client.get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("an answer").status().as_u16()
    }

    /// Asks for something by POST, which must be granted; gives the answer.
    async fn post(
        &self,
        client: &reqwest::Client,
        path: &str,
        headers: &[(&str, &str)],
        body: &serde_json::Value,
    ) -> serde_json::Value {
        let mut request = client.post(format!("{}{path}", self.base)).json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.expect("JSON")
    }

    /// Tells it to stop (SIGTERM), and waits for its end; gives what it has logged.
    fn stop(mut self, client: reqwest::Client) -> (ExitStatus, String) {
        // A stopping server waits for its clients' idle connections.
        drop(client);
        let told = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &self.process.id().to_string()]).status();
        assert!(told.expect("a shell").success(), "it can be told to stop");
        let ended = self.process.wait().expect("its end");
        (ended, fs::read_to_string(&self.log).expect("its log"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_request_continues_the_trace_that_it_comes_from() {
    let collector = Collector::taking();
    let settings = [("OTEL_SERVICE_NAME", "tea-shop"), ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b")];
    let server = Server::traced(&collector.address, &settings);
    let client = client();
    let traceparent = format!("00-{TRACE}-{CALLER}-01");
    let headers = [("traceparent", traceparent.as_str()), ("x-request-id", "request-1")];
    let path = "/api/products/0199f7a0-0000-7000-8000-000000000000";
    assert_eq!(server.ask(&client, path, &headers).await, 404);
    assert_eq!(server.ask(&client, "/nowhere", &[("traceparent", "nonsense")]).await, 404);
    // What is not sent yet is sent at the end.
    let (ended, log) = server.stop(client);
    assert_eq!(ended.code(), Some(0), "{log}");

    let sent = collector.everything();
    let first = sent.first().expect("spans have arrived");
    assert!(first.head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{}", first.head);
    assert!(first.head.contains("x-key: a b\r\n"), "{}", first.head);
    assert_eq!(first.resource("service.name").as_deref(), Some("tea-shop"));
    assert_eq!(first.resource("service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
    let spans: Vec<&Span> = sent.iter().flat_map(Sent::spans).collect();
    let named =
        |name: &str| *spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:#?}"));

    let product = named("GET /products/{id}");
    assert_eq!((hexadecimal(&product.trace_id), hexadecimal(&product.parent_span_id)), (TRACE.into(), CALLER.into()));
    assert_eq!(product.kind, SpanKind::Server as i32);
    for (name, value) in [
        ("id", "request-1"),
        ("http.route", "/products/{id}"),
        ("http.request.method", "GET"),
        ("http.response.status_code", "404"),
        ("url.path", path),
    ] {
        assert_eq!(text(&product.attributes, name).as_deref(), Some(value), "{name}");
    }
    let failed = product.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error);
    assert!(!failed, "a 404 is not the server's fault");

    let unknown = named("GET");
    assert_eq!(unknown.parent_span_id, Vec::<u8>::new(), "a trace of its own");
    assert_ne!(hexadecimal(&unknown.trace_id), TRACE);
    assert_eq!(text(&unknown.attributes, "http.route"), None);

    let answered = log.lines().find(|line| line.contains("request-1") && line.contains("\"answered\""));
    let answered: serde_json::Value = serde_json::from_str(answered.expect("a line of the log")).expect("JSON");
    assert_eq!(answered["span"]["trace_id"], TRACE, "{answered}");
}

#[tokio::test]
async fn who_asks_says_what_is_traced_and_the_share_says_the_rest() {
    let collector = Collector::taking();
    let server = Server::traced(&collector.address, &[("OTEL_TRACES_SAMPLER_ARG", "0")]);
    let client = client();
    let (traced, untraced) = (format!("00-{TRACE}-{CALLER}-01"), format!("00-{TRACE}-{CALLER}-00"));
    assert_eq!(server.ask(&client, "/cart/me", &[]).await, 200);
    assert_eq!(server.ask(&client, "/products", &[("traceparent", &untraced)]).await, 200);
    assert_eq!(server.ask(&client, "/health/live", &[("traceparent", &traced)]).await, 200);
    let (ended, log) = server.stop(client);
    assert_eq!(ended.code(), Some(0), "{log}");
    let sent = collector.everything();
    let names: Vec<&str> = sent.iter().flat_map(Sent::spans).map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["GET /health/live"]);
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let server = Server::traced(&format!("http://{nobody}"), &[]);
    let client = client();
    for _ in 0..20 {
        assert_eq!(server.ask(&client, "/products", &[]).await, 200);
    }
    let (ended, log) = server.stop(client);
    assert_eq!(ended.code(), Some(0), "{log}");
    assert_eq!(log.matches("the collector takes no spans").count(), 1, "{log}");
}

#[tokio::test]
async fn a_collector_that_says_nothing_is_not_waited_for() {
    let collector = Collector::silent();
    let server = Server::traced(&collector.address, &[]);
    let client = client();
    assert_eq!(server.ask(&client, "/products", &[]).await, 200);
    // From here on the exporter waits for an answer that does not come.
    collector.next();
    for _ in 0..1_000 {
        assert_eq!(server.ask(&client, "/health/live", &[]).await, 200);
    }
    let (ended, log) = server.stop(client);
    assert_eq!(ended.code(), Some(0), "{log}");
}

#[tokio::test]
async fn without_a_collector_a_trace_is_nobodys_concern() {
    let server = Server::start(&[("OTEL_SERVICE_NAME", "tea-shop")]);
    let client = client();
    let traceparent = format!("00-{TRACE}-{CALLER}-01");
    assert_eq!(server.ask(&client, "/products", &[("traceparent", &traceparent)]).await, 200);
    let (ended, log) = server.stop(client);
    assert_eq!(ended.code(), Some(0), "{log}");
    assert!(log.contains("\"answered\"") && !log.contains("trace_id") && !log.contains("otel"), "{log}");
}

#[tokio::test]
async fn a_checkout_is_one_trace_from_the_request_to_the_event_that_is_done() {
    let collector = Collector::taking();
    let admin = [("ADMIN_EMAIL", "admin@example.org"), ("ADMIN_PASSWORD", "correct horse")];
    let server = Server::traced(&collector.address, &[admin.as_slice(), &[("OTEL_TRACES_SAMPLER_ARG", "0")]].concat());
    let client = client();
    let sign_in = serde_json::json!({"email": "admin@example.org", "password": "correct horse"});
    let token = server.post(&client, "/auth/login", &[], &sign_in).await;
    let bearer = format!("Bearer {}", token["accessToken"].as_str().expect("a token"));
    let signed_in = ("authorization", bearer.as_str());
    let tea = serde_json::json!({"sku": "TEA-1", "name": "Tea", "price": 5, "status": "PUBLISHED", "quantity": 10});
    let tea = server.post(&client, "/products", &[signed_in], &tea).await;
    let one = serde_json::json!({"productId": tea["id"], "quantity": 1});
    let cart = server.post(&client, "/cart/add-to-cart", &[], &one).await;
    let session = cart["cartSessionId"].as_str().expect("a session");

    let traceparent = format!("00-{TRACE}-{CALLER}-01");
    let traced = ("traceparent", traceparent.as_str());
    server.post(&client, "/cart/add-to-cart", &[traced, ("x-cart-session-id", session)], &one).await;
    let checkout = serde_json::json!({"cartSessionId": session});
    server.post(&client, "/orders/checkout", &[traced, signed_in], &checkout).await;
    // What is in the outbox is published, and done, before the server has stopped.
    let (ended, log) = server.stop(client);
    assert_eq!(ended.code(), Some(0), "{log}");

    let sent = collector.everything();
    let spans: Vec<&Span> = sent.iter().flat_map(Sent::spans).collect();
    assert!(spans.iter().all(|span| hexadecimal(&span.trace_id) == TRACE), "nothing else is traced: {spans:#?}");
    // Each span by its way from the request, its parents' names before its own.
    let mut ways: Vec<String> = spans.iter().map(|span| way(span, &spans)).collect();
    ways.sort_unstable();
    let change = "POST /cart/add-to-cart > cart";
    let mut wanted = vec![
        "POST /cart/add-to-cart".to_owned(),
        change.to_owned(),
        format!("{change} > inventory"),
        format!("{change} > journal"),
        "POST /orders/checkout".to_owned(),
        "POST /orders/checkout > checkout".to_owned(),
        "POST /orders/checkout > checkout > cart".to_owned(),
        "POST /orders/checkout > checkout > journal".to_owned(),
    ];
    wanted.extend(vec!["POST /orders/checkout > checkout > publish".to_owned(); 3]);
    // Nobody here consumes order-status.
    wanted.extend(vec!["POST /orders/checkout > checkout > publish > consume".to_owned(); 2]);
    wanted.sort_unstable();
    assert_eq!(ways, wanted);
}

/// The names of the spans from the request to this one.
fn way(span: &Span, all: &[&Span]) -> String {
    match all.iter().find(|parent| parent.span_id == span.parent_span_id) {
        Some(parent) => format!("{} > {}", way(parent, all), span.name),
        None => span.name.clone(),
    }
}
