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

/// A server under load.
pub(crate) struct Server {
    base: String,
    place: String,
    admin: (String, String),
    /// The variables that say where the database is, when that is known.
    database: Vec<(&'static str, String)>,
    own: Option<Own>,
}

/// What this program has started; it goes with it.
struct Own {
    process: Child,
    folder: TempDir,
    _services: Option<Services>,
}

struct Services {
    database: postgres::Database,
    _server: postgres::Server,
    redis: redis::Server,
}

impl Server {
    /// Starts one: on SQLite alone, or on PostgreSQL, which syncs every commit, and Redis.
    pub(crate) async fn start(real: bool) -> Self {
        spawn_blocking(move || Self::start_here(real)).await.expect("the server starts")
    }

    fn start_here(real: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let services = real.then(|| {
            let server = postgres::Server::new(postgres::Durability::Real);
            Services { database: postgres::Database::of(&server), _server: server, redis: redis::Server::new() }
        });
        let (database, redis, place) = match &services {
            None => (("DATA_DIR", folder.path().join("data").display().to_string()), None, "SQLite"),
            Some(services) => {
                let redis = ("REDIS_URL", services.redis.url());
                (("DATABASE_URL", services.database.url.clone()), Some(redis), "PostgreSQL and Redis")
            }
        };
        let log = File::create(folder.path().join("log")).expect("a log");
        let mut process = Command::new(program())
            .current_dir(folder.path())
            .env_clear()
            .envs([("BIND", "127.0.0.1:0"), ("ADMIN_EMAIL", ADMIN_EMAIL), ("ADMIN_PASSWORD", ADMIN_PASSWORD)])
            .envs([&database].into_iter().chain(&redis).map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the server was built beside this program");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("its output")).read_line(&mut line).expect("its output");
        let (_, address) = line.split_once("http://").expect("it says where it serves");
        Self {
            base: format!("http://{}", address.trim()),
            place: format!("a server of our own on {place}"),
            admin: (ADMIN_EMAIL.to_owned(), ADMIN_PASSWORD.to_owned()),
            database: vec![database],
            own: Some(Own { process, folder, _services: services }),
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

    /// Resident memory, MiB; `None` of one that this has not started.
    pub(crate) fn memory(&self) -> Option<u64> {
        let process = self.own.as_ref()?.process.id();
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? / 1_024)
    }

    /// Has `storekeeper check` look at the books, beside the server, where the database is known; whether they are right.
    pub(crate) fn check(&self) -> Option<bool> {
        if self.database.is_empty() {
            return None;
        }
        let mut check = Command::new(program());
        check.arg("check").env_clear().envs(self.database.iter().map(|(name, value)| (name, value)));
        if let Some(own) = &self.own {
            check.current_dir(own.folder.path());
        }
        Some(check.status().expect("it was built beside this program").success())
    }

    /// Stops one of our own in order; whether it did.
    pub(crate) fn stop(&mut self) -> Option<bool> {
        let own = self.own.as_mut()?;
        let told = Command::new("kill").args(["-TERM", &own.process.id().to_string()]).status();
        assert!(told.expect("kill runs").success(), "the server is still there");
        let stopped = own.process.wait().expect("it ends").success();
        if !stopped {
            let log = std::fs::read_to_string(own.folder.path().join("log")).unwrap_or_default();
            eprintln!("{}", log.lines().rev().take(20).collect::<Vec<_>>().join("\n"));
        }
        Some(stopped)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The server's program, which is built beside this one.
fn program() -> PathBuf {
    let here = env::current_exe().expect("this program has a place");
    here.parent().and_then(Path::parent).expect("the folder of the build").join("storekeeper")
}
