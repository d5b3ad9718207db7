//! The commands as a shell sees them: what they print, what they exit with, what they leave in the database.

#![expect(clippy::expect_used, reason = "a test fails where it stands")]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use storekeeper::config::settings;
use storekeeper::domain::user::{EmailAddress, Role};
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::sqlite::{SqliteOptions, SqliteStore};
use storekeeper::persistence::{Accounts, Upkeep};
use tempfile::TempDir;

/// A folder that commands are run in, with nothing set but what is set here.
struct Shell {
    folder: TempDir,
    settings: Vec<(&'static str, &'static str)>,
}

impl Shell {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), settings: Vec::new() }
    }

    fn with(settings: &[(&'static str, &'static str)]) -> Self {
        Self { settings: settings.to_vec(), ..Self::new() }
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_storekeeper"));
        command.args(arguments.split_whitespace()).current_dir(&self.folder).env_clear();
        command.envs(self.settings.iter().copied());
        command
    }

    fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    /// Runs a command that must exit with `code`; gives what it printed, faults included.
    fn expect(&self, code: i32, arguments: &str) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {text}");
        text
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }
}

/// A process that does not outlive its test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

async fn open(folder: &Path) -> SqliteStore {
    let options = SqliteOptions { folder: folder.to_owned(), readers: 1 };
    SqliteStore::open(options, Clock::system()).await.expect("the database opens")
}

async fn execute(folder: &Path, statement: &'static str) -> u64 {
    let options = SqliteConnectOptions::new().filename(folder.join("storekeeper.sqlite"));
    let mut connection = options.connect().await.expect("a connection");
    let done = sqlx::query(statement).execute(&mut connection).await.expect("a statement");
    connection.close().await.expect("closed");
    done.rows_affected()
}

#[test]
fn a_demo_is_made_once_and_its_books_are_right() {
    let shell = Shell::new();
    assert!(shell.expect(3, "check").contains("there is no database in ./data"));
    assert!(shell.expect(0, "migrate").contains("is up to date"));
    assert!(shell.expect(0, "demo").starts_with("24 products are in the catalogue, "));
    assert!(shell.expect(1, "demo").contains("the database has products already"));
    let books = shell.expect(0, "check");
    assert!(
        books.lines().filter(|line| line.starts_with("ok ") && line.contains("(24 looked at)")).count() >= 5,
        "{books}"
    );
    assert!(books.ends_with("rules hold.\n"), "{books}");
}

#[tokio::test]
async fn broken_books_are_named() {
    let shell = Shell::new();
    shell.expect(0, "demo");
    let more = "UPDATE inventories SET on_hand = on_hand + 1 WHERE sku = 'TIN-150'";
    assert_eq!(execute(&shell.data(), more).await, 1);
    let books = shell.expect(1, "check");
    let broken: Vec<_> = books.lines().filter(|line| line.starts_with("BROKEN  2  ")).collect();
    assert!(!broken.is_empty() && broken.iter().all(|line| line.contains("(1 of 24 looked at): ")), "{books}");
    assert!(books.ends_with("rules are broken.\n"), "{books}");
}

#[tokio::test]
async fn a_server_has_its_folder_for_itself_but_for_a_check() {
    let shell = Shell::new();
    let server = open(&shell.data()).await;
    for command in ["demo", "migrate", "admin create --email ann@example.org"] {
        assert!(shell.expect(3, command).contains("is in use by another storekeeper"), "{command}");
    }
    shell.expect(0, "check");
    server.close().await;
    shell.expect(0, "demo");
}

#[test]
fn a_backup_overwrites_nothing() {
    let shell = Shell::new();
    assert!(shell.expect(3, "backup copy").contains("there is no database in ./data"));
    shell.expect(0, "demo");
    let said = shell.expect(0, "backup copy");
    assert!(said.starts_with("copy is a backup of ./data (SQLite): ") && said.ends_with(" bytes.\n"), "{said}");
    assert!(shell.expect(1, "backup copy").contains("copy is there already, and is not overwritten"));
    let file = shell.folder.path().join("taken");
    std::fs::write(&file, "mine").expect("written");
    shell.expect(1, "backup taken");
    assert_eq!(std::fs::read(&file).expect("read"), b"mine");
    let said = shell.expect(1, "backup not/there/copy");
    assert!(said.contains("there is no folder not/there to put the backup into"), "{said}");
    assert!(shell.expect(2, "backup").contains("<FILE>"));
}

#[test]
fn a_backup_that_fails_leaves_nothing() {
    let shell = Shell::new();
    shell.expect(0, "demo");
    // Its second half is not what it was: the copy has begun when it comes to that.
    let database = shell.data().join("storekeeper.sqlite");
    let mut bytes = std::fs::read(&database).expect("the database");
    let half = bytes.len() / 2;
    bytes[half..].fill(0xff);
    std::fs::write(&database, bytes).expect("written");
    let said = shell.expect(3, "backup copy");
    assert!(said.contains("the database can not be copied to copy: "), "{said}");
    let left = std::fs::read_dir(&shell.folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["data"]);
}

#[test]
fn a_backup_of_postgresql_is_refused() {
    let said = Shell::with(&[("DATABASE_URL", "postgres://shop:pw-that-is-secret@127.0.0.1:1/books")]);
    let said = said.expect(1, "backup copy");
    assert!(said.contains("pg_dump") && said.contains("docs/operations.md"), "{said}");
    assert!(!said.contains("pw-that-is-secret"), "{said}");
}

#[tokio::test]
async fn an_administrator_can_be_made_with_or_without_a_password() {
    let shell = Shell::new();
    let said = shell.expect(0, "admin create --email Ann@Example.org --name Ann");
    let password = said.rsplit(": ").next().expect("a password").trim();
    assert_eq!(password.len(), 24, "{said}");
    assert!(shell.expect(1, "admin create --email ann@example.org").contains("has an account already"));
    let said = shell.expect(0, "admin create --email bob@example.org --password correct-horse");
    assert!(!said.contains("correct-horse"), "{said}");
    assert!(shell.expect(2, "admin create --email bob --password short").contains("invalid value"));

    let store = open(&shell.data()).await;
    for (email, name) in [("ann@example.org", "Ann"), ("bob@example.org", "Administrator")] {
        let email = EmailAddress::parse(email).expect("an address");
        let account = store.account_by_email(&email).await.expect("an answer").expect("an account");
        assert_eq!((account.role, account.verified, account.name.as_str()), (Role::Admin, true, name));
        assert!(account.password_hash.starts_with("$argon2id$"));
        assert!(store.profile_of(account.id).await.expect("an answer").is_some());
    }
    store.close().await;
}

#[test]
fn a_server_that_is_told_to_stop_stops_in_order() {
    let shell = Shell::with(&[("BIND", "127.0.0.1:0")]);
    let server = shell.command("").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut server = Ending(server);
    let mut output = BufReader::new(server.0.stdout.take().expect("its output"));
    let mut said = String::new();
    while !said.contains("  admin ") {
        assert_ne!(output.read_line(&mut said).expect("a line"), 0, "it ended: {said}");
    }
    assert!(said.contains("serves at http://127.0.0.1:") && said.contains("admin@localhost, password "), "{said}");
    let address = said.split("http://127.0.0.1:").nth(1).and_then(|rest| rest.lines().next()).expect("a port");
    let everywhere: &'static str = format!("0.0.0.0:{address}").leak();
    let beside = Shell::with(&[("BIND", everywhere)]);
    assert!(beside.expect(0, "health").contains(r#""status":"up""#));
    let told = Command::new("kill").args(["-TERM", &server.0.id().to_string()]).status().expect("kill runs");
    assert!(told.success());
    output.read_to_string(&mut said).expect("the rest");
    assert_eq!(server.0.wait().expect("its end").code(), Some(0), "{said}");
    assert!(shell.expect(0, "check").ends_with("rules hold.\n"));
    assert!(beside.expect(3, "health").contains("refused"));
}

#[test]
fn an_address_that_is_taken_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address: &'static str = taken.local_addr().expect("its address").to_string().leak();
    let said = Shell::with(&[("BIND", address)]).expect(3, "serve");
    assert!(said.contains(&format!("can not listen at {address}: ")), "{said}");
}

#[test]
fn faults_of_the_settings_are_told_before_anything_is_made() {
    let shell = Shell::with(&[("CART_TTL", "soon"), ("SMTP_URL", "mail.example.org"), ("DATA_DIR", "data")]);
    let said = shell.expect(2, "serve");
    assert!(said.contains("the configuration has 2 faults:") && said.contains("CART_TTL is \"soon\""), "{said}");
    assert!(!shell.data().exists());
    assert!(shell.expect(2, "frobnicate").contains("unrecognized subcommand"));
}

#[test]
fn the_file_of_settings_is_read_and_the_environment_wins() {
    let shell = Shell::with(&[("DATA_DIR", "environment")]);
    let file = shell.folder.path().join(".env");
    std::fs::write(&file, "# The shop\nDATA_DIR=file\nCART_TTL=soon\n").expect("written");
    let said = shell.expect(2, "migrate");
    assert!(said.contains("1 fault:") && said.contains("CART_TTL is \"soon\""), "{said}");
    std::fs::write(&file, "DATA_DIR=file\n").expect("written");
    shell.expect(0, "migrate");
    assert!(shell.folder.path().join("environment").is_dir() && !shell.folder.path().join("file").exists());
    std::fs::write(&file, "JWT_SECRET a secret without the sign between\n").expect("written");
    let said = shell.expect(2, "migrate");
    assert!(said.contains("the file .env can not be read") && !said.contains("a secret without"), "{said}");
}

#[test]
fn help_names_every_setting_and_exit_code() {
    let help = Shell::new().expect(0, "--help");
    for setting in settings::all() {
        assert!(help.contains(setting.name), "{}", setting.name);
    }
    for word in ["serve", "migrate", "check", "backup", "health", "admin", "demo", "Exit codes:"] {
        assert!(help.contains(word), "{word}");
    }
}
