//! The command line: what it takes, and what each command does until its exit code.

mod backup;
mod check;
mod demo;
mod health;

use std::collections::HashMap;
use std::env;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use secrecy::{ExposeSecret, SecretString};

use crate::admin::{self, AdminError};
use crate::app::{self, AppError};
use crate::config::{Config, ConfigError, StoreConfig, settings};
use crate::domain::user::{EmailAddress, InvalidEmailAddress};
use crate::persistence::clock::Clock;
use crate::persistence::open::{self, OpenError};
use crate::persistence::sqlite::backup::BackupError;
use crate::persistence::{SharedStore, StoreError};
use crate::telemetry::{self, TelemetryError};

/// Connections that read, for a command that asks one thing after another.
const COMMAND_READERS: u32 = 1;

/// What is told of a bad line of `.env`, instead of the line.
const NOT_A_LINE: &str = "a line of it is not of the form NAME=value";

/// A headless commerce server that never sells a unit twice.
///
/// Without a command it serves: the database, the first administrator and the keys are made at the first start, in
/// the folder ./data, and nothing else needs to be there. Put a unit into a cart and it is held for that cart;
/// check out and it is sold; whatever was acknowledged is on disk.
#[derive(Parser)]
#[command(name = "storekeeper", version, after_long_help = after_help())]
#[command(after_help = "Settings and exit codes: --help.")]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the shop until it is told to stop (SIGTERM or Ctrl-C); what it does without a command.
    Serve,
    /// Makes the database, or brings its schema up to date. No server may run on it, if it is SQLite.
    Migrate,
    /// Verifies the books: stock against ledger, holds, orders, events. May run beside a server.
    ///
    /// Prints a line for each rule with how much was looked at, and the identifiers of what breaks it.
    Check,
    /// Writes a copy of the database into a new file. May run beside a server, if it is SQLite.
    ///
    /// The copy is of one moment and holds everything that was acknowledged before it began. Only its owner may read it,
    /// for it holds password hashes and keys. A file that is there already is not overwritten; when the copy fails,
    /// nothing is left of it. For PostgreSQL there is pg_dump.
    Backup {
        /// The file to write.
        file: PathBuf,
    },
    /// Asks the server of these settings, at BIND, whether it is ready: for health checks.
    Health,
    /// Administrators.
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Fills an empty database with the catalogue and the stock of a small shop. No server may run on it, if it is
    /// SQLite.
    Demo,
    /// Prints the page of the settings, in Markdown.
    #[command(hide = true)]
    Settings,
}

#[derive(Subcommand)]
enum AdminCommand {
    /// Makes an administrator, verified and ready to sign in. No server may run on the database, if it is SQLite.
    Create {
        /// Their address.
        #[arg(long, value_parser = parse_email)]
        email: EmailAddress,
        /// What they are called, 3 to 255 characters.
        #[arg(long, default_value = admin::NAME, value_parser = parse_name)]
        name: String,
        /// Their password, 8 to 128 characters. Left out, one is made and printed once. Other users of the machine
        /// can see the arguments of a command.
        #[arg(long, value_parser = parse_password)]
        password: Option<SecretString>,
    },
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Without the line, which may hold a secret.
    #[error("the file .env can not be read: {0}")]
    EnvironmentFile(String),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("the database has products already: demo fills an empty one only")]
    NotEmpty,
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(
        "backup copies a database on SQLite; one on PostgreSQL is backed up with pg_dump: docs/operations.md says how"
    )]
    BackupOfPostgres,
    #[error("it was told to end before it was done; nothing is left of it")]
    Interrupted,
    #[error("{0}")]
    System(#[from] io::Error),
}

impl CliError {
    /// What the process exits with; `--help` lists them.
    fn exit_code(&self) -> u8 {
        match self {
            Self::NotEmpty
            | Self::Admin(AdminError::AddressTaken)
            | Self::Backup(BackupError::Exists { .. } | BackupError::NoFolder { .. })
            | Self::BackupOfPostgres => 1,
            Self::Config(_) | Self::EnvironmentFile(_) => 2,
            Self::App(AppError::NotDrained(_) | AppError::Stuck) => 4,
            Self::App(AppError::Interrupted) => 5,
            Self::Telemetry(_)
            | Self::Open(_)
            | Self::App(_)
            | Self::Store(_)
            | Self::Admin(_)
            | Self::Backup(_)
            | Self::Interrupted
            | Self::System(_) => 3,
        }
    }
}

fn after_help() -> String {
    let codes = "Exit codes:\n\
        \x20 0  done; a server was told to stop and has done all that it had begun\n\
        \x20 1  refused: check found a fault, demo found products, the address has an account,\n\
        \x20    backup found its file there, no folder for it, or PostgreSQL,\n\
        \x20    health was told that the server is not ready\n\
        \x20 2  the command line or a setting is wrong\n\
        \x20 3  the server could not start or go on: folder, database, port; health found none;\n\
        \x20    backup failed, or was told to end, and left nothing\n\
        \x20 4  a server was told to stop, and SHUTDOWN_LIMIT was over before everything was done\n\
        \x20 5  a server was ended at once by a second signal\n\n";
    format!("{codes}{}", settings::help())
}

/// Does what the command line says.
#[must_use]
pub fn run() -> ExitCode {
    match run_command(Arguments::parse().command.unwrap_or(Command::Serve)) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "storekeeper: {}", with_causes(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

fn run_command(command: Command) -> Result<ExitCode, CliError> {
    if let Command::Settings = command {
        write!(io::stdout(), "{}", settings::page())?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::read(settings_source()?)?;
    // A command has nothing to trace.
    let traces = matches!(command, Command::Serve).then_some(config.traces.as_deref()).flatten();
    let traces = telemetry::start(&config.log, traces)?;
    let done = do_command(command, config);
    traces.stop();
    done
}

fn do_command(command: Command, config: Config) -> Result<ExitCode, CliError> {
    match command {
        Command::Serve => app::serve(config)?,
        Command::Migrate => block_on(migrate(&config.store))?,
        Command::Backup { file } => block_on(backup::backup(&config.store, &file))?,
        Command::Health => return Ok(health::ask(config.http.bind)?),
        Command::Check => return block_on(check::check(&config.store)),
        Command::Admin(AdminCommand::Create { email, name, password }) => {
            block_on(create_admin(&config.store, &email, &name, password))?;
        }
        Command::Demo => block_on(demo::fill(&config))?,
        Command::Settings => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn migrate(store: &StoreConfig) -> Result<(), CliError> {
    open(store).await?.close().await;
    writeln!(io::stdout(), "The database in {store} is up to date.")?;
    Ok(())
}

async fn create_admin(
    store: &StoreConfig,
    email: &EmailAddress,
    name: &str,
    password: Option<SecretString>,
) -> Result<(), CliError> {
    let database = open(store).await?;
    let created = admin::create(database.as_ref(), email, name, password, Clock::system().now()).await;
    database.close().await;
    let made_up = created?;
    writeln!(io::stdout(), "{email} is an administrator now.")?;
    if let Some(password) = made_up {
        writeln!(io::stdout(), "Their password, which is not shown again: {}", password.expose_secret())?;
    }
    Ok(())
}

/// Opens the database for a command that changes it.
async fn open(store: &StoreConfig) -> Result<SharedStore, OpenError> {
    open::open(store.options(COMMAND_READERS), Clock::system()).await
}

fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work)
}

/// Gives a variable's value: the environment's, else that of the file `.env` in this folder.
fn settings_source() -> Result<impl Fn(&str) -> Option<String>, CliError> {
    let file: HashMap<String, String> = match dotenvy::from_path_iter(PathBuf::from(".env")) {
        Ok(lines) => lines.collect::<Result<_, _>>().map_err(environment_file)?,
        Err(error) if error.not_found() => HashMap::new(),
        Err(error) => return Err(environment_file(error)),
    };
    Ok(move |name: &str| {
        let set = env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        set.or_else(|| file.get(name).cloned())
    })
}

fn environment_file(error: dotenvy::Error) -> CliError {
    let told = if let dotenvy::Error::Io(error) = error { error.to_string() } else { NOT_A_LINE.to_owned() };
    CliError::EnvironmentFile(told)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn parse_email(text: &str) -> Result<EmailAddress, InvalidEmailAddress> {
    EmailAddress::parse(text)
}

fn parse_password(text: &str) -> Result<SecretString, &'static str> {
    let fits = (8..=128).contains(&text.chars().count());
    if fits { Ok(text.into()) } else { Err("must have 8 to 128 characters") }
}

fn parse_name(text: &str) -> Result<String, &'static str> {
    let fits = (3..=255).contains(&text.chars().count()) && !text.contains(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("must have 3 to 255 characters, all of them printable") }
}
