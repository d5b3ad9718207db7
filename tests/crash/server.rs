//! A server in a process of its own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::load::{LOOK_PERIOD, PATIENCE};
use crate::place::Place;

pub(crate) const ADMIN_EMAIL: &str = "admin@example.org";
pub(crate) const ADMIN_PASSWORD: &str = "correct horse battery staple";

/// What is set in every server; what a test sets beside it wins.
const SETTINGS: [(&str, &str); 6] = [
    ("BIND", "127.0.0.1:0"),
    ("ADMIN_EMAIL", ADMIN_EMAIL),
    ("ADMIN_PASSWORD", ADMIN_PASSWORD),
    ("JWT_SECRET", "a key of the tests and of nothing else at all"),
    // The machine may be slow, and none of these tests is about deadlines.
    ("REQUEST_DEADLINE_MS", "60000"),
    ("SHUTDOWN_LIMIT", "60"),
];

/// The program with a command, at a place, with nothing set but what is set here.
pub(crate) fn program(place: &Place, command: &str, settings: &[(&str, &str)]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_storekeeper"));
    program.arg(command);
    set(&mut program, place, settings);
    program
}

/// Sets the environment of a program that is, or starts, a server.
pub(crate) fn set(program: &mut Command, place: &Place, settings: &[(&str, &str)]) {
    program.current_dir(place.folder()).env_clear().envs(place.settings()).env("LOG", "warn");
    program.envs(SETTINGS).envs(settings.iter().copied());
}

/// A server that serves, and ends with the test.
pub(crate) struct Server {
    process: Child,
    /// Open for as long as the server, which may have more to say.
    said: BufReader<ChildStdout>,
    address: String,
    log: PathBuf,
}

impl Server {
    /// Starts one.
    pub(crate) fn start(place: &Place, settings: &[(&str, &str)]) -> Self {
        Self::of(program(place, "serve", settings), place)
    }

    /// Starts the server that `program` is, or that it starts; when this returns, it serves.
    pub(crate) fn of(mut program: Command, place: &Place) -> Self {
        let mut server = Self::silent(&mut program, place);
        let mut line = String::new();
        server.said.read_line(&mut line).expect("its output can be read");
        let Some((_, address)) = line.split_once("http://") else {
            let (ended, log) = (server.end(), fs::read_to_string(&server.log).unwrap_or_default());
            panic!("{} ended ({ended}) before it served: {line}{log}", program.get_program().display());
        };
        address.trim().clone_into(&mut server.address);
        server
    }

    /// Starts it, and does not wait for what it says.
    pub(crate) fn silent(program: &mut Command, place: &Place) -> Self {
        static LOGS: AtomicUsize = AtomicUsize::new(0);
        let log = place.folder().join(format!("log-{}", LOGS.fetch_add(1, Ordering::Relaxed)));
        let mut process = program
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a log"))
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.get_program().display()));
        let said = BufReader::new(process.stdout.take().expect("its output"));
        Self { process, said, address: String::new(), log }
    }

    /// Where it is asked: address and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The process that was started.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills it on the spot (SIGKILL).
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("it can be killed");
        let ended = self.process.wait().expect("its end");
        assert!(ended.code().is_none(), "it was killed, and had not ended by itself: {ended}");
    }

    /// Tells it to stop (SIGTERM).
    pub(crate) fn terminate(&self) {
        terminate(self.id());
    }

    /// Tells it to stop in the terminal's way (SIGINT).
    pub(crate) fn interrupt(&self) {
        signal(self.id(), "INT");
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.end()
    }

    /// Waits for its end, where another one takes its place.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(ended) = self.process.try_wait().expect("its end") {
                return ended;
            }
            assert!(Instant::now() < end, "it does not end");
            thread::sleep(LOOK_PERIOD);
        }
    }
}

/// Tells a process to stop (SIGTERM).
pub(crate) fn terminate(process: u32) {
    signal(process, "TERM");
}

fn signal(process: u32, name: &str) {
    let told = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &process.to_string()]).status();
    assert!(told.expect("a shell").success(), "process {process} can be sent {name}");
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        if thread::panicking() {
            eprintln!("the server's log:\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}
