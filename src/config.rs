//! The settings of a server: read once at start, typed, and refused with every fault at once.
//!
//! `main` reads them from the environment and the file `.env`, tests from what they like. The table in [`settings`]
//! says what there is; this module says what it means.

mod reader;
pub mod settings;
mod traces;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use secrecy::SecretString;
use tracing_subscriber::EnvFilter;

use crate::actors::delivery::RetryRules;
use crate::actors::shop::ShopRules;
use crate::actors::supervision::Policy;
use crate::domain::cart::{Lifetime, Limits};
use crate::domain::money::{Currency, TaxRate};
use crate::domain::user::EmailAddress;
use crate::messaging::amqp::AmqpOptions;
use crate::messaging::smtp::{SmtpOptions, SmtpServer};
use crate::persistence::forget::Retention;
use crate::persistence::open::StoreOptions;
use crate::persistence::postgres::PostgresOptions;
use crate::persistence::redis::RedisOptions;
use crate::persistence::sqlite::SqliteOptions;

use reader::Reader;
pub use reader::{ConfigError, Fault};
pub use traces::TraceConfig;

const METRICS_PERIOD: Duration = Duration::from_secs(5);
const DAY_SECONDS: u64 = 86_400;
const YEAR_SECONDS: u64 = 366 * DAY_SECONDS;
/// Ten years: what is kept longer is not meant to be removed.
const RETENTION_DAYS_MAX: u64 = 3_660;
/// The least for the identifiers of messages: a broker or a server may be away over a long weekend.
const MESSAGE_ID_DAYS_MIN: u64 = 7;
const POOL_MAX: u64 = 1_000;
const MAILBOX_MAX: u64 = 1_000_000;

/// All that can be set. It has no `Debug`, since it holds secrets.
#[derive(Clone)]
pub struct Config {
    /// How the server listens and answers.
    pub http: HttpConfig,
    /// Currency, tax, carts.
    pub shop: ShopRules,
    /// After how long an unconfirmed order is cancelled; `None` is never.
    pub order_pending_ttl: Option<Duration>,
    /// Where things are kept.
    pub store: StoreConfig,
    /// For how long they are kept.
    pub retention: Retention,
    /// Where carts are mirrored; `None` is nowhere.
    pub redis: Option<RedisOptions>,
    /// The broker that carries the events; `None` is the bus inside the program.
    pub broker: Option<AmqpOptions>,
    /// Who mails come from, and who carries them.
    pub mail: MailConfig,
    /// How users prove who they are.
    pub tokens: TokenConfig,
    /// The first administrator.
    pub admin: AdminConfig,
    /// How much may wait.
    pub actors: ActorsConfig,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Where traces are sent; `None` is nowhere.
    pub traces: Option<Box<TraceConfig>>,
    /// How a server stops.
    pub shutdown: ShutdownConfig,
    /// How often the database is asked for what the metrics tell of it.
    pub metrics_period: Duration,
}

/// How a server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// For how long it serves on while it says already that it is not ready.
    pub grace: Duration,
    /// How long it may take after that to finish what it has begun.
    pub limit: Duration,
}

/// How the server listens and answers.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Where it listens; port 0 is any free one.
    pub bind: SocketAddr,
    /// Threads that serve requests, 1 or more.
    pub workers: usize,
    /// How long a request may take.
    pub request_deadline: Duration,
    /// What this server is called among others.
    pub node: String,
}

/// Where things are kept.
#[derive(Clone)]
pub enum StoreConfig {
    /// In SQLite files of this machine.
    Sqlite {
        /// Their folder.
        folder: PathBuf,
    },
    /// In PostgreSQL, which other servers may share. It has no `Debug`, since an address may hold a password.
    Postgres(PostgresOptions),
}

impl StoreConfig {
    /// What to open; `readers` is how many connections read from SQLite.
    #[must_use]
    pub fn options(&self, readers: u32) -> StoreOptions {
        match self {
            Self::Sqlite { folder } => StoreOptions::Sqlite(SqliteOptions { folder: folder.clone(), readers }),
            Self::Postgres(options) => StoreOptions::Postgres(options.clone()),
        }
    }
}

impl fmt::Display for StoreConfig {
    /// Where it is, for people; nothing of it is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { folder } => write!(f, "{} (SQLite)", folder.display()),
            Self::Postgres(options) => write!(f, "{} (PostgreSQL)", options.place()),
        }
    }
}

/// Who mails come from, and who carries them. It has no `Debug`, since it may hold a password.
#[derive(Clone)]
pub struct MailConfig {
    /// An address, or a name and an address in angle brackets.
    pub sender: String,
    /// The mail server; `None` keeps mails and sends none.
    pub smtp: Option<SmtpOptions>,
    /// When a mail is tried again.
    pub retries: RetryRules,
}

/// How users prove who they are.
#[derive(Clone)]
pub struct TokenConfig {
    /// The key of the access tokens, 32 bytes or more; `None` is the one in the database.
    pub secret: Option<SecretString>,
    /// Life of an access token.
    pub access_ttl: Duration,
    /// Life of a refresh token.
    pub refresh_ttl: Duration,
}

/// The first administrator, made when there is none.
#[derive(Clone)]
pub struct AdminConfig {
    /// Their address.
    pub email: EmailAddress,
    /// Their password; `None` is one made up and printed once.
    pub password: Option<SecretString>,
}

/// How much may wait, and how long an idle actor is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActorsConfig {
    /// Messages that may wait for one product's stock.
    pub inventory_mailbox: usize,
    /// Messages that may wait for one cart.
    pub cart_mailbox: usize,
    /// Checkouts and changes of orders that may wait.
    pub orders_mailbox: usize,
    /// Entries that may wait for the journal.
    pub journal_mailbox: usize,
    /// Entries of one transaction at most.
    pub journal_batch_max: usize,
    /// How long events may give way to orders that are being placed.
    pub event_delay_max: Duration,
    /// After how long without a message an actor is put away.
    pub idle_ttl: Duration,
    /// When dead actors are started again.
    pub supervision: Policy,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// In the form of tracing's env-filter; known to be readable.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Config {
    /// Reads the settings; `source` gives a variable's value.
    ///
    /// # Errors
    /// [`ConfigError`] names every fault.
    pub fn read(source: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(&source);
        let config = read_all(&mut reader);
        reader.finish(config)
    }

    /// What a server has when nothing is configured, but for its folder and its port, which is any free one.
    /// For tests and benches.
    ///
    /// # Errors
    /// None that a program meets which passes its tests: the defaults are usable.
    pub fn embedded(folder: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::read(|_| None)?;
        config.store = StoreConfig::Sqlite { folder: folder.to_owned() };
        config.http.bind.set_port(0);
        Ok(config)
    }
}

// Each of these reads all of its settings before it gives up, so that all faults are found.

fn read_all(reader: &mut Reader<'_>) -> Option<Config> {
    let http = read_http(reader);
    let shop = read_shop(reader);
    let order_pending_ttl = seconds(reader, &settings::ORDER_PENDING_TTL, 1, YEAR_SECONDS);
    let store = read_store(reader);
    let retention = read_retention(reader);
    let right = "redis://host:port/number, rediss://…, or redis+cluster://host:port,host:port";
    let redis = reader.read(&settings::REDIS_URL, right, RedisOptions::of);
    let broker =
        reader.read(&settings::AMQP_URL, "an address such as amqp://user:password@host:5672/vhost", AmqpOptions::of);
    let mail = read_mail(reader);
    let tokens = read_tokens(reader);
    let admin = read_admin(reader);
    let actors = read_actors(reader);
    let log = read_log(reader);
    let traces = traces::read(reader);
    let grace = seconds(reader, &settings::SHUTDOWN_GRACE, 0, 3_600);
    let limit = seconds(reader, &settings::SHUTDOWN_LIMIT, 1, 3_600);
    let (http, shutdown) = (http?, ShutdownConfig { grace: grace?, limit: limit? });
    if shutdown.limit < http.request_deadline {
        let right = "it must not be less than REQUEST_DEADLINE_MS: a request that has begun must have its time";
        reader.fault(&settings::SHUTDOWN_LIMIT, right);
    }
    Some(Config {
        http,
        shop: shop?,
        order_pending_ttl,
        store: store?,
        retention: retention?,
        redis,
        broker,
        mail: mail?,
        tokens: tokens?,
        admin: admin?,
        actors: actors?,
        log: log?,
        traces: traces?,
        shutdown,
        metrics_period: METRICS_PERIOD,
    })
}

fn read_http(reader: &mut Reader<'_>) -> Option<HttpConfig> {
    let bind =
        reader.read(&settings::BIND, "an IP address and a port, such as 127.0.0.1:8081", |text| text.parse().ok());
    let workers = match reader.given(settings::HTTP_WORKERS.name) {
        Some(_) => reader.number(&settings::HTTP_WORKERS, "threads", 1, 1_024),
        None => Some(available_parallelism().map_or(1, |cores| cores.get() as u64)),
    };
    let node = match reader.given(settings::NODE_NAME.name) {
        Some(_) => reader.read(&settings::NODE_NAME, "1 to 64 visible ASCII characters", |text| {
            let fits = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
            fits.then(|| text.to_owned())
        }),
        None => Some(this_node()),
    };
    let deadline = reader.number(&settings::REQUEST_DEADLINE_MS, "milliseconds", 50, 600_000);
    Some(HttpConfig {
        bind: bind?,
        workers: usize::try_from(workers?).ok()?,
        request_deadline: Duration::from_millis(deadline?),
        node: node?,
    })
}

/// The machine's name and this process's number: no two servers at a time have both.
fn this_node() -> String {
    let machine = hostname::get().ok().and_then(|name| name.into_string().ok());
    format!("{}/{}", machine.as_deref().unwrap_or("localhost"), std::process::id())
}

fn read_shop(reader: &mut Reader<'_>) -> Option<ShopRules> {
    let currency = reader.read(&settings::CURRENCY, "an ISO 4217 code in capitals, such as EUR", Currency::from_code);
    let tax = reader.read(&settings::TAX_RATE, "a decimal from 0 to 1, such as 0.19", TaxRate::parse);
    let ttl = seconds(reader, &settings::CART_TTL, 1, DAY_SECONDS);
    let max_age = seconds(reader, &settings::CART_MAX_AGE, 1, 30 * DAY_SECONDS);
    let lines = reader.number(&settings::CART_MAX_LINES, "lines", 1, 1_000);
    let units = reader.number(&settings::CART_MAX_UNITS, "units", 1, 1_000_000_000);
    let lifetime = Lifetime { ttl: ttl?, max_age: max_age? };
    if lifetime.ttl > lifetime.max_age {
        reader.fault(&settings::CART_TTL, "it must not be more than CART_MAX_AGE");
    }
    let limits = Limits { lines: usize::try_from(lines?).ok()?, units: i64::try_from(units?).ok()? };
    Some(ShopRules { currency: currency?, tax: tax?, lifetime, limits })
}

fn read_store(reader: &mut Reader<'_>) -> Option<StoreConfig> {
    let pool =
        reader.number(&settings::DATABASE_POOL, "connections", 1, POOL_MAX).and_then(|size| u32::try_from(size).ok());
    let Some(url) = reader.given(settings::DATABASE_URL.name) else {
        let folder = reader.read(&settings::DATA_DIR, "a folder", |text| Some(PathBuf::from(text)));
        return Some(StoreConfig::Sqlite { folder: folder? });
    };
    if reader.given(settings::DATA_DIR.name).is_some() {
        reader.fault(&settings::DATA_DIR, "DATABASE_URL names the folder already; set one of the two");
    }
    if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        let right = "an address such as postgres://user:password@host:5432/database";
        return reader
            .read(&settings::DATABASE_URL, right, |url| PostgresOptions::of(url, pool?))
            .map(StoreConfig::Postgres);
    }
    let right = "sqlite: and a folder, such as sqlite:./data, or postgres:// and an address";
    let folder = reader.read(&settings::DATABASE_URL, right, |text| {
        let folder = text.strip_prefix("sqlite:")?;
        let folder = folder.strip_prefix("//").unwrap_or(folder);
        (!folder.is_empty() && !folder.starts_with(':') && !folder.contains('?')).then(|| PathBuf::from(folder))
    });
    Some(StoreConfig::Sqlite { folder: folder? })
}

fn read_retention(reader: &mut Reader<'_>) -> Option<Retention> {
    let mut days = |setting, least| {
        let days = reader.number(setting, "days", least, RETENTION_DAYS_MAX);
        days.map(|days| Duration::from_secs(days * DAY_SECONDS))
    };
    let captured_mails = days(&settings::CAPTURED_MAIL_RETENTION_DAYS, 1);
    let sent_mails = days(&settings::SENT_MAIL_RETENTION_DAYS, 1);
    let logins = days(&settings::LOGIN_RETENTION_DAYS, 1);
    let idempotency_keys = days(&settings::IDEMPOTENCY_RETENTION_DAYS, 1);
    let message_ids = days(&settings::MESSAGE_ID_RETENTION_DAYS, MESSAGE_ID_DAYS_MIN);
    let published_events = days(&settings::EVENT_RETENTION_DAYS, 1);
    let dead_letters = days(&settings::DEAD_LETTER_RETENTION_DAYS, 1);
    let journal_batches = days(&settings::JOURNAL_BATCH_RETENTION_DAYS, 1);
    let (message_ids, dead_letters) = (message_ids?, dead_letters?);
    if message_ids < dead_letters {
        let right = "it must not be less than DEAD_LETTER_RETENTION_DAYS: what was put away may be handed in again";
        reader.fault(&settings::MESSAGE_ID_RETENTION_DAYS, right);
    }
    Some(Retention {
        captured_mails: captured_mails?,
        sent_mails: sent_mails?,
        logins: logins?,
        idempotency_keys: idempotency_keys?,
        message_ids,
        published_events: published_events?,
        dead_letters,
        journal_batches: journal_batches?,
    })
}

fn read_mail(reader: &mut Reader<'_>) -> Option<MailConfig> {
    let sender = reader.read(&settings::MAIL_SENDER, "an address, or a name and <an address>", sender);
    let right = "an address such as smtps://user:password@host:465 or smtp://host:587?tls=required";
    let smtp = reader.read(&settings::SMTP_URL, right, SmtpServer::parse).map(SmtpOptions::of);
    Some(MailConfig { sender: sender?, smtp, retries: RetryRules::default() })
}

fn read_tokens(reader: &mut Reader<'_>) -> Option<TokenConfig> {
    let secret = reader
        .read(&settings::JWT_SECRET, "32 bytes or more", |text| (text.len() >= 32).then(|| SecretString::from(text)));
    let access = seconds(reader, &settings::ACCESS_TOKEN_TTL, 10, 30 * DAY_SECONDS);
    let refresh = seconds(reader, &settings::REFRESH_TOKEN_TTL, 10, YEAR_SECONDS);
    let (access_ttl, refresh_ttl) = (access?, refresh?);
    if access_ttl > refresh_ttl {
        reader.fault(&settings::ACCESS_TOKEN_TTL, "it must not be more than REFRESH_TOKEN_TTL");
    }
    Some(TokenConfig { secret, access_ttl, refresh_ttl })
}

fn read_admin(reader: &mut Reader<'_>) -> Option<AdminConfig> {
    let right = "an e-mail address such as ann@example.org";
    let email = reader.read(&settings::ADMIN_EMAIL, right, |text| EmailAddress::parse(text).ok());
    let password = reader.read(&settings::ADMIN_PASSWORD, "8 to 128 characters", |text| {
        (8..=128).contains(&text.chars().count()).then(|| SecretString::from(text))
    });
    Some(AdminConfig { email: email?, password })
}

fn read_actors(reader: &mut Reader<'_>) -> Option<ActorsConfig> {
    let mut count = |setting, unit| reader.number(setting, unit, 1, MAILBOX_MAX);
    let inventory = count(&settings::INVENTORY_MAILBOX, "messages");
    let cart = count(&settings::CART_MAILBOX, "messages");
    let orders = count(&settings::ORDERS_MAILBOX, "messages");
    let journal = count(&settings::JOURNAL_MAILBOX, "changes");
    let batch = count(&settings::JOURNAL_BATCH_MAX, "changes");
    let event_delay = reader.number(&settings::EVENT_DELAY_MAX_MS, "milliseconds", 0, 60_000);
    let idle = seconds(reader, &settings::IDLE_ACTOR_TTL, 1, DAY_SECONDS);
    let supervision = read_supervision(reader);
    if batch? > journal? {
        reader.fault(&settings::JOURNAL_BATCH_MAX, "it must not be more than JOURNAL_MAILBOX, which it is taken from");
    }
    let size = |number: Option<u64>| usize::try_from(number?).ok();
    Some(ActorsConfig {
        inventory_mailbox: size(inventory)?,
        cart_mailbox: size(cart)?,
        orders_mailbox: size(orders)?,
        journal_mailbox: size(journal)?,
        journal_batch_max: size(batch)?,
        event_delay_max: Duration::from_millis(event_delay?),
        idle_ttl: idle?,
        supervision: supervision?,
    })
}

fn read_supervision(reader: &mut Reader<'_>) -> Option<Policy> {
    let deaths = reader.number(&settings::ACTOR_QUARANTINE_AFTER, "panics", 0, 1_000);
    let window = seconds(reader, &settings::ACTOR_QUARANTINE_WINDOW, 1, DAY_SECONDS);
    let backoff = reader.number(&settings::ACTOR_BACKOFF_MAX_MS, "milliseconds", 0, 600_000);
    let hang = seconds(reader, &settings::ACTOR_HANG_LIMIT, 0, DAY_SECONDS);
    let backoff_max = Duration::from_millis(backoff?);
    let default = Policy::default();
    Some(Policy {
        deaths_max: u32::try_from(deaths?).ok().filter(|deaths| *deaths > 0),
        window: window?,
        backoff_min: default.backoff_min.min(backoff_max),
        backoff_max,
        hang_limit: hang.map(|hang| (!hang.is_zero()).then_some(hang))?,
    })
}

fn read_log(reader: &mut Reader<'_>) -> Option<LogConfig> {
    let filter = reader.read(&settings::LOG, "a filter such as info,storekeeper=debug", |text| {
        EnvFilter::try_new(text).ok().map(|_| text.to_owned())
    });
    let format = reader.read(&settings::LOG_FORMAT, "auto, text or json", |text| match text {
        "auto" => Some(LogFormat::Auto),
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    });
    Some(LogConfig { filter: filter?, format: format? })
}

fn seconds(reader: &mut Reader<'_>, setting: &settings::Setting, least: u64, most: u64) -> Option<Duration> {
    reader.number(setting, "seconds", least, most).map(Duration::from_secs)
}

/// A sender's text: `ann@example.org` or `Ann Lee <ann@example.org>`.
fn sender(text: &str) -> Option<String> {
    let address = match text.strip_suffix('>').and_then(|rest| rest.split_once('<')) {
        Some((name, address)) => {
            let plain = !name.contains(|c: char| c.is_control() || "<>\"\\".contains(c));
            plain.then_some(address)?
        }
        None => text,
    };
    EmailAddress::parse(address).ok().map(|_| text.to_owned())
}

#[cfg(test)]
mod tests;
