//! Redis for tests: a private server in a temporary folder, seen through `redis-cli`.
//!
//! The server listens at a socket in its folder, so it takes no port from anybody. Its guard is a shell that waits for
//! the end of a pipe: however a test ends, killed ones too, the pipe ends with it and the server is stopped.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether a server has started.
const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// Runs the server until the pipe on its standard input ends, then ends it on the spot: it keeps nothing, and one
/// that is frozen hears nothing else. Its number is in a file.
const GUARD: &str = r#"
    "$0" "$@" &
    server=$!
    echo "$server" >process
    cat >&2
    kill -KILL "$server" 2>/dev/null
    wait "$server"
"#;

/// A server of its own, in a folder that goes with it. What it holds goes when it stops.
pub(crate) struct Server {
    folder: TempDir,
    settings: Vec<String>,
    /// How `redis-cli` finds it.
    address: Vec<String>,
    guard: Option<Child>,
}

impl Server {
    /// A new server at a socket.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("storekeeper-").tempdir().expect("a folder");
        let socket = folder.path().join("socket").display().to_string();
        let settings = ["--port", "0", "--unixsocket", &socket].map(str::to_owned).to_vec();
        Self::of(folder, settings, vec!["-s".to_owned(), socket])
    }

    /// A new server that is one of a cluster, at these ports of the loopback.
    pub(crate) fn of_a_cluster(port: u16, bus_port: u16) -> Self {
        let folder = tempfile::Builder::new().prefix("storekeeper-").tempdir().expect("a folder");
        let (port, bus_port) = (port.to_string(), bus_port.to_string());
        let settings =
            ["--bind", "127.0.0.1", "--port", &port, "--cluster-enabled", "yes", "--cluster-port", &bus_port];
        Self::of(folder, settings.map(str::to_owned).to_vec(), ["-c", "-p", &port].map(str::to_owned).to_vec())
    }

    fn of(folder: TempDir, settings: Vec<String>, address: Vec<String>) -> Self {
        let mut server = Self { folder, settings, address, guard: None };
        server.start();
        server
    }

    /// Starts it, empty; when this returns, it takes connections.
    pub(crate) fn start(&mut self) {
        let folder = self.folder.path();
        let log = fs::File::options().create(true).append(true).open(folder.join("log")).expect("a log");
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "redis-server"]).args(&self.settings);
        command.args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"]).arg(folder);
        command.stdin(Stdio::piped()).stdout(log.try_clone().expect("a log")).stderr(log).current_dir(folder);
        self.guard = Some(command.spawn().expect("a shell"));
        let end = Instant::now() + PATIENCE;
        while self.try_ask(&["PING"]).as_deref() != Some("PONG") {
            let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "redis-server does not start:\n{log}");
            thread::sleep(LOOK_PERIOD);
        }
    }

    /// Ends it: connections are cut, what it held is gone.
    pub(crate) fn stop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            guard.wait().expect("the server stops");
        }
    }

    /// From now on it says nothing, though its connections stay.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// From now on it goes on.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let process = fs::read_to_string(self.folder.path().join("process")).expect("a process");
        let script = format!("kill -{signal} {}", process.trim());
        assert!(Command::new("sh").args(["-c", &script]).status().expect("a shell").success(), "{script}");
    }

    /// What `redis-cli` gives for a command.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        self.try_ask(command).unwrap_or_else(|| panic!("redis-cli has no answer to {command:?}"))
    }

    fn try_ask(&self, command: &[&str]) -> Option<String> {
        let told = Command::new("redis-cli").args(&self.address).args(command).output().expect("redis-cli runs");
        let text = String::from_utf8(told.stdout).expect("UTF-8");
        told.status.success().then(|| text.trim_end().to_owned())
    }

    /// The folder that goes with it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its address, as `REDIS_URL` takes it.
    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.folder().join("socket").display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
