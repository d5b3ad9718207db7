//! The server that is under load: one that this program starts, or one that runs already.

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::task::spawn_blocking;
use url::Url;

use crate::{postgres, redis};

const ADMIN_EMAIL: &str = "admin@example.org";
const ADMIN_PASSWORD: &str = "correct horse battery staple";
/// Where a server's database is; `storekeeper check` is told the same.
const DATABASE: [&str; 2] = ["DATABASE_URL", "DATA_DIR"];

/// Settings by which carts live longer than any run: what one part of it leaves is not the next one's to expire.
pub(crate) fn long_lived_carts() -> [(&'static str, String); 2] {
    ["CART_TTL", "CART_MAX_AGE"].map(|name| (name, "86400".to_owned()))
}

/// A server under load.
pub(crate) struct Server {
    base: String,
    place: String,
    admin: (String, String),
    /// The variables that say where the database is, when that is known.
    database: Vec<(&'static str, String)>,
    own: Option<Own>,
}

/// What this program has started; it goes with it, the process first.
struct Own {
    process: Process,
    ground: Ground,
}

struct Process(Child);

/// What a server of our own stands on: a folder, and the services beside it. They go with it.
pub(crate) struct Ground {
    folder: TempDir,
    services: Option<Services>,
}

struct Services {
    database: postgres::Database,
    _server: postgres::Server,
    redis: redis::Server,
}

impl Ground {
    /// SQLite alone, or PostgreSQL, which syncs every commit, and Redis.
    pub(crate) async fn new(real: bool) -> Self {
        let services = || {
            let server = postgres::Server::new(postgres::Durability::Real);
            Services { database: postgres::Database::of(&server), _server: server, redis: redis::Server::new() }
        };
        let lay = move || Self { folder: tempfile::tempdir().expect("a folder"), services: real.then(services) };
        spawn_blocking(lay).await.expect("the services start")
    }

    /// The variable that says where the database is.
    pub(crate) fn database(&self) -> (&'static str, String) {
        match &self.services {
            None => ("DATA_DIR", self.folder.path().join("data").display().to_string()),
            Some(services) => ("DATABASE_URL", services.database.url.clone()),
        }
    }

    /// What it is, for people.
    pub(crate) fn place(&self) -> &'static str {
        if self.services.is_some() { "PostgreSQL and Redis" } else { "SQLite" }
    }

    fn redis(&self) -> Option<(&'static str, String)> {
        self.services.as_ref().map(|services| ("REDIS_URL", services.redis.url()))
    }
}

impl Server {
    /// Starts one of our own, with more settings, on what may have a database already.
    pub(crate) async fn on(ground: Ground, settings: Vec<(&'static str, String)>) -> Self {
        spawn_blocking(move || Self::start_here(ground, &settings)).await.expect("the server starts")
    }

    fn start_here(ground: Ground, settings: &[(&'static str, String)]) -> Self {
        let database = ground.database();
        let log = File::create(ground.folder.path().join("log")).expect("a log");
        let mut process = Command::new(program())
            .current_dir(ground.folder.path())
            .env_clear()
            .envs([("BIND", "127.0.0.1:0"), ("ADMIN_EMAIL", ADMIN_EMAIL), ("ADMIN_PASSWORD", ADMIN_PASSWORD)])
            .envs([&database].into_iter().chain(&ground.redis()).chain(settings).map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the server was built beside this program");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("its output")).read_line(&mut line).expect("its output");
        let (_, address) = line.split_once("http://").expect("it says where it serves");
        Self {
            base: format!("http://{}", address.trim()),
            place: format!("a server of our own on {}", ground.place()),
            admin: (ADMIN_EMAIL.to_owned(), ADMIN_PASSWORD.to_owned()),
            database: vec![database],
            own: Some(Own { process: Process(process), ground }),
        }
    }

    /// One that runs already.
    pub(crate) fn given(url: &Url) -> Self {
        let variable = |name| env::var(name).unwrap_or_else(|_| panic!("{name} must be the administrator's"));
        let database = DATABASE.into_iter().filter_map(|name| Some((name, env::var(name).ok()?)));
        Self {
            base: url.as_str().trim_end_matches('/').to_owned(),
            place: "the server".to_owned(),
            admin: (variable("ADMIN_EMAIL"), variable("ADMIN_PASSWORD")),
            database: database.collect(),
            own: None,
        }
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Where its database is, when that is known.
    pub(crate) fn database(&self) -> Option<&(&'static str, String)> {
        self.database.first()
    }

    /// What it is, for people.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn admin_email(&self) -> &str {
        &self.admin.0
    }

    pub(crate) fn admin_password(&self) -> &str {
        &self.admin.1
    }

    /// The number of the process; `None` of one that this has not started.
    pub(crate) fn process(&self) -> Option<u32> {
        self.own.as_ref().map(|own| own.process.0.id())
    }

    /// Resident memory, kB (of 1,024 bytes); `None` of one that this has not started.
    pub(crate) fn memory_kb(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    }

    /// Has `storekeeper check` look at the books, beside the server, where the database is known; whether they are right.
    pub(crate) fn check(&self) -> Option<bool> {
        if self.database.is_empty() {
            return None;
        }
        let mut check = Command::new(program());
        check.arg("check").env_clear().envs(self.database.iter().map(|(name, value)| (name, value)));
        if let Some(own) = &self.own {
            check.current_dir(own.ground.folder.path());
        }
        Some(check.status().expect("it was built beside this program").success())
    }

    /// Stops one of our own in order; whether it did.
    pub(crate) fn stop(&mut self) -> Option<bool> {
        let own = self.own.as_mut()?;
        let told = Command::new("kill").args(["-TERM", &own.process.0.id().to_string()]).status();
        assert!(told.expect("kill runs").success(), "the server is still there");
        let stopped = own.process.0.wait().expect("it ends").success();
        if !stopped {
            let log = std::fs::read_to_string(own.ground.folder.path().join("log")).unwrap_or_default();
            eprintln!("{}", log.lines().rev().take(20).collect::<Vec<_>>().join("\n"));
        }
        Some(stopped)
    }

    /// Stops one of our own in order, and gives what it stood on, for another one; `None` when there is none or it did
    /// not end in order.
    pub(crate) fn leave(mut self) -> Option<Ground> {
        let stopped = self.stop()?;
        self.own.filter(|_| stopped).map(|own| own.ground)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The server's program, which is built beside this one.
fn program() -> PathBuf {
    let here = env::current_exe().expect("this program has a place");
    here.parent().and_then(Path::parent).expect("the folder of the build").join("storekeeper")
}
