//! RabbitMQ for tests: a private server in a temporary folder, and a virtual host of its own for each test.
//!
//! The server is a node of its own, with its own name server (epmd), on free ports of the loopback. Its guard is a shell
//! that waits for a word on a pipe: however a test ends, killed ones too, the pipe ends with it, and server, name server
//! and folder go.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode};
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use super::unprivileged;

/// The server that ordinary tests use when it is given, as a URL of any of its virtual hosts; and the address of its
/// management API, by which virtual hosts are made, such as `http://guest:guest@127.0.0.1:15672`.
const GIVEN_SERVER: &str = "TEST_AMQP_URL";
const GIVEN_API: &str = "TEST_AMQP_API";
/// Where Debian keeps the program itself; beside it in the path is one that only root may run.
const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// The user that the server runs as when the test runs as root.
const UNPRIVILEGED: &str = "rabbitmq";
/// Who may do everything on a private server.
const USER: &str = "guest";
/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long an answer of the management API may take.
const API_TIME_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether a server has started.
const LOOK_PERIOD: Duration = Duration::from_millis(50);
/// Where ports are looked for: below those that the system gives to clients, or else one that looks for a stopped
/// server could be connected to itself.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// Runs name server and server until it is told to `stop` them in order or to `kill` them. When nobody is there any
/// more to tell, it kills them and removes the folder.
const GUARD: &str = r#"
    epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 &
    names=$!
    tries=0
    until epmd -port "$ERL_EPMD_PORT" -names >&2 || [ "$tries" -ge 200 ]; do
        tries=$((tries + 1))
        sleep 0.05
    done
    "$0" &
    server=$!
    word=
    read -r word
    case $word in
    stop) kill -TERM "$server" ;;
    *) kill -KILL "$server" ;;
    esac
    wait "$server"
    kill -KILL "$names"
    wait "$names"
    [ -n "$word" ] || { cd / && rm -rf "$HOME"; }
"#;

/// How a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// In order.
    Stopped,
    /// In the middle of whatever it is at.
    Killed,
}

/// A server of its own, in a folder that goes with it.
pub(crate) struct Server {
    folder: TempDir,
    ports: [u16; 4],
    guard: Option<Child>,
}

impl Server {
    /// A new server with nothing in it.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("storekeeper-").tempdir().expect("a folder");
        let ports = free_ports();
        let [amqp, api, ..] = ports;
        let settings = format!(
            "listeners.tcp.default = 127.0.0.1:{amqp}\n\
             management.tcp.ip = 127.0.0.1\n\
             management.tcp.port = {api}\n\
             vm_memory_high_watermark.absolute = 512MB\n\
             disk_free_limit.absolute = 10MB\n\
             raft.wal_max_size_bytes = 33554432\n\
             collect_statistics_interval = 500\n\
             log.console.level = warning\n"
        );
        fs::write(folder.path().join("rabbitmq.conf"), settings).expect("settings");
        fs::write(folder.path().join("plugins"), "[rabbitmq_management].\n").expect("plugins");
        if let Some((user, group)) = unprivileged::user_and_group(UNPRIVILEGED) {
            for path in ["", "rabbitmq.conf", "plugins"] {
                chown(folder.path().join(path), Some(user), Some(group)).expect("the folder is given away");
            }
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("permissions");
        }
        let mut server = Self { folder, ports, guard: None };
        server.start();
        server
    }

    /// Starts it; when this returns, it takes connections.
    pub(crate) fn start(&mut self) {
        let folder = self.folder.path();
        let [_, _, names, nodes] = self.ports;
        let log = fs::File::options().create(true).append(true).open(folder.join("output")).expect("a log");
        let mut command = unprivileged::command(UNPRIVILEGED, Path::new("sh"));
        command.args(["-c", GUARD, PROGRAM]).current_dir(folder);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RABBITMQ_") || name.starts_with("ERL_"))
        {
            command.env_remove(name);
        }
        let schedulers = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none";
        command
            .env("HOME", folder)
            .env("ERL_EPMD_PORT", names.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", format!("storekeeper-{names}@localhost"))
            .env("RABBITMQ_DIST_PORT", nodes.to_string())
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq"))
            .env("RABBITMQ_CONF_ENV_FILE", folder.join("none"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
            .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_PID_FILE", folder.join("pid"))
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                format!("{schedulers} -kernel inet_dist_use_interface {{127,0,0,1}}"),
            )
            // Then it does not stand behind a shell of its own, which would outlive it when it is killed.
            .env("RUNNING_UNDER_SYSTEMD", "true");
        command.stdin(Stdio::piped()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.guard = Some(command.spawn().expect("the server starts"));
        let end = Instant::now() + PATIENCE;
        while ask(&self.api(), Method::GET, "/api/health/checks/port-listener/".to_owned() + &self.port().to_string())
            != Some(StatusCode::OK)
        {
            assert!(Instant::now() < end, "the server does not start:\n{}", self.log());
            thread::sleep(LOOK_PERIOD);
        }
    }

    /// Ends it. What it has confirmed stays.
    pub(crate) fn end(&mut self, end: End) {
        if let Some(mut guard) = self.guard.take() {
            let word: &[u8] = if end == End::Stopped { b"stop\n" } else { b"kill\n" };
            guard.stdin.take().expect("a pipe").write_all(word).expect("the guard listens");
            guard.wait().expect("the server ends");
        }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.ports[0]
    }

    fn api(&self) -> String {
        format!("http://{USER}:{USER}@127.0.0.1:{}", self.ports[1])
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("output")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(End::Killed);
    }
}

/// A virtual host of a test's own, which goes with it.
pub(crate) struct VirtualHost {
    /// Its address.
    pub(crate) url: String,
    /// Its name on its server.
    pub(crate) name: String,
    /// The management API of its server.
    pub(crate) api: String,
    /// The server, when it is to live as long as this.
    server: Option<Arc<Server>>,
}

impl VirtualHost {
    /// An empty one, on the server that is given or on one that the tests of this program share.
    pub(crate) fn new() -> Self {
        match std::env::var(GIVEN_SERVER) {
            Ok(given) => {
                let api = std::env::var(GIVEN_API).unwrap_or_else(|_| panic!("{GIVEN_SERVER} needs {GIVEN_API}"));
                let place = given.match_indices('/').nth(2).map_or(given.as_str(), |(end, _)| &given[..end]);
                Self::on(place, api)
            }
            Err(_) => {
                let server = shared();
                let mut host = Self::of(&server);
                host.server = Some(server);
                host
            }
        }
    }

    /// An empty one on a server of the test's own.
    pub(crate) fn of(server: &Server) -> Self {
        Self::on(&format!("amqp://{USER}:{USER}@127.0.0.1:{}", server.port()), server.api())
    }

    fn on(place: &str, api: String) -> Self {
        let name = format!("test-{}", Uuid::now_v7().simple());
        let made = ask(&api, Method::PUT, format!("/api/vhosts/{name}"));
        assert_eq!(made, Some(StatusCode::CREATED), "no virtual host");
        let user = reqwest::Url::parse(&api).expect("an address").username().to_owned();
        let allowed = ask(&api, Method::PUT, format!("/api/permissions/{name}/{user}"));
        assert!(allowed.is_some_and(|status| status.is_success()), "no permissions: {allowed:?}");
        Self { url: format!("{place}/{name}"), name, api, server: None }
    }
}

impl Drop for VirtualHost {
    fn drop(&mut self) {
        // The one who owns the server may have ended it; then nothing is left anyway.
        ask(&self.api, Method::DELETE, format!("/api/vhosts/{}", self.name));
        drop(self.server.take());
    }
}

/// The server of this program's tests: it lives for as long as one of them uses it.
fn shared() -> Arc<Server> {
    static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let server = Arc::new(Server::new());
        *shared = Arc::downgrade(&server);
        server
    })
}

/// Asks a management API, from wherever; `None` when nobody answers.
fn ask(api: &str, method: Method, path: String) -> Option<StatusCode> {
    let url = format!("{api}{path}");
    let asker = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(async {
            let client = Client::builder().no_proxy().timeout(API_TIME_MAX).build().ok()?;
            let permissions = json!({"configure": ".*", "write": ".*", "read": ".*"});
            let request = client.request(method, url).json(&permissions);
            request.send().await.ok().map(|answer| answer.status())
        })
    });
    asker.join().ok().flatten()
}

fn free_ports() -> [u16; 4] {
    let mut held = Vec::new();
    let span = u128::from(PORTS.end - PORTS.start);
    let mut next = u16::try_from(Uuid::now_v7().as_u128() % span).expect("less than the span");
    while held.len() < 4 {
        next = (next + 1) % (PORTS.end - PORTS.start);
        held.extend(TcpListener::bind(("127.0.0.1", PORTS.start + next)));
    }
    let ports: Vec<u16> = held.iter().map(|held| held.local_addr().expect("an address").port()).collect();
    ports.try_into().expect("four")
}
