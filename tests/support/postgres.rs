//! PostgreSQL for tests: a private server in a temporary folder, and a database of its own for each test.
//!
//! The server listens at a socket in its folder, so it takes no port from anybody. Its guard is a shell that waits for
//! the end of a pipe: however a test ends, killed ones too, the pipe ends with it and the server is stopped.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use tempfile::TempDir;
use uuid::Uuid;

use super::unprivileged;

/// The server that ordinary tests use when it is given, as a URL of any of its databases.
const GIVEN_SERVER: &str = "TEST_DATABASE_URL";
/// Where Debian keeps the newest version's programs; elsewhere they are looked for in the path.
const PROGRAMS: &str = "/usr/lib/postgresql";
/// The user that the server runs as when the test runs as root, which PostgreSQL refuses.
const UNPRIVILEGED: &str = "postgres";
/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether a server has started.
const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// Runs the server until the pipe on its standard input ends, then stops it at once but in order.
const GUARD: &str = r#"
    "$0" "$@" &
    server=$!
    cat >&2
    kill -INT "$server" 2>/dev/null
    wait "$server"
"#;

/// Whether what is committed has to survive the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// As in production.
    Real,
    /// Quicker, and as good for a test that does not cut the power.
    None,
}

/// A server of its own, in a folder that goes with it.
pub(crate) struct Server {
    folder: TempDir,
    durability: Durability,
    guard: Option<Child>,
}

impl Server {
    /// A new server with nothing in it.
    pub(crate) fn new(durability: Durability) -> Self {
        let folder = tempfile::Builder::new().prefix("storekeeper-").tempdir().expect("a folder");
        if let Some((user, group)) = unprivileged::user_and_group(UNPRIVILEGED) {
            chown(folder.path(), Some(user), Some(group)).expect("the folder is given away");
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("permissions");
        }
        let data = folder.path().join("data");
        let made = unprivileged::command(UNPRIVILEGED, &program("initdb"))
            .args(["--no-sync", "--auth=trust", "--username=shop", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .current_dir(folder.path())
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut server = Self { folder, durability, guard: None };
        server.start();
        server
    }

    /// Starts it; when this returns, it takes connections.
    pub(crate) fn start(&mut self) {
        let folder = self.folder.path();
        let sync = if self.durability == Durability::Real { "on" } else { "off" };
        let log = fs::File::options().create(true).append(true).open(folder.join("log")).expect("a log");
        let mut command = unprivileged::command(UNPRIVILEGED, Path::new("sh"));
        command.args(["-c", GUARD]).arg(program("postgres")).arg("-D").arg(folder.join("data")).arg("-k").arg(folder);
        for setting in ["listen_addresses=", "max_connections=300", "max_prepared_transactions=0"] {
            command.args(["-c", setting]);
        }
        for setting in ["fsync", "full_page_writes"] {
            command.args(["-c", &format!("{setting}={sync}")]);
        }
        command.stdin(Stdio::piped()).stdout(log.try_clone().expect("a log")).stderr(log).current_dir(folder);
        self.guard = Some(command.spawn().expect("the server starts"));
        let end = Instant::now() + PATIENCE;
        while !self.is_ready() {
            assert!(Instant::now() < end, "the server does not start:\n{}", self.log());
            thread::sleep(LOOK_PERIOD);
        }
    }

    /// Stops it: connections are cut, what is committed stays.
    pub(crate) fn stop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            guard.wait().expect("the server stops");
        }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join(".s.PGSQL.5432")
    }

    /// The address of one of its databases.
    fn url(&self, database: &str) -> String {
        format!("postgres://shop@localhost/{database}?host={}", self.folder.path().display())
    }

    fn is_ready(&self) -> bool {
        self.socket().exists() && run(&self.url("postgres"), "SELECT 1".to_owned()).is_ok()
    }

    fn log(&self) -> String {
        let mut text = String::new();
        if let Ok(mut log) = fs::File::open(self.folder.path().join("log")) {
            drop(log.read_to_string(&mut text));
        }
        text
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A database of a test's own, which goes with it.
pub(crate) struct Database {
    /// Its address.
    pub(crate) url: String,
    /// Its name on its server.
    pub(crate) name: String,
    /// The address of another database of the server, to drop this one from.
    beside: String,
    /// The server, when it is to live as long as this.
    server: Option<Arc<Server>>,
}

impl Database {
    /// An empty one, on the server that is given or on one that the tests of this program share.
    pub(crate) fn new() -> Self {
        match std::env::var(GIVEN_SERVER) {
            Ok(given) => Self::on(&given, |name| with_database(&given, name)),
            Err(_) => {
                let server = shared();
                let mut database = Self::of(&server);
                database.server = Some(server);
                database
            }
        }
    }

    /// An empty one on a server of the test's own.
    pub(crate) fn of(server: &Server) -> Self {
        Self::on(&server.url("postgres"), |name| server.url(name))
    }

    fn on(beside: &str, url: impl FnOnce(&str) -> String) -> Self {
        let name = format!("test_{}", Uuid::now_v7().simple());
        run(beside, format!("CREATE DATABASE {name}")).unwrap_or_else(|error| panic!("no database: {error}"));
        Self { url: url(&name), name, beside: beside.to_owned(), server: None }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The one who owns the server may have stopped it; then nothing is left anyway.
        drop(run(&self.beside, format!("DROP DATABASE {} WITH (FORCE)", self.name)));
        drop(self.server.take());
    }
}

/// The server of this program's tests: it lives for as long as one of them uses it.
fn shared() -> Arc<Server> {
    static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let server = Arc::new(Server::new(Durability::None));
        *shared = Arc::downgrade(&server);
        server
    })
}

/// Runs a statement on a connection of its own, from wherever.
fn run(url: &str, statement: String) -> Result<(), sqlx::Error> {
    let url = url.to_owned();
    let runner = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(sqlx::Error::Io)?;
        runtime.block_on(async {
            let mut connection = connect(&url).await?;
            connection.execute(AssertSqlSafe(statement)).await?;
            connection.close().await
        })
    });
    runner.join().unwrap_or(Err(sqlx::Error::WorkerCrashed))
}

/// A connection to a database itself, past the store.
pub(crate) async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
    PgConnectOptions::from_str(url)?.disable_statement_logging().connect().await
}

/// The address with another database in it.
fn with_database(url: &str, database: &str) -> String {
    let (address, parameters) = url.split_once('?').map_or((url, ""), |(address, parameters)| (address, parameters));
    let server = address.match_indices('/').nth(2).map_or(address, |(place, _)| &address[..place]);
    let separator = if parameters.is_empty() { "" } else { "?" };
    format!("{server}/{database}{separator}{parameters}")
}

/// One of PostgreSQL's programs.
pub(crate) fn program(name: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = fs::read_dir(PROGRAMS)
        .map(|folders| folders.flatten().map(|folder| folder.path().join("bin").join(name)).collect())
        .unwrap_or_default();
    versions.retain(|program| program.exists());
    versions.sort();
    versions.pop().unwrap_or_else(|| PathBuf::from(name))
}
