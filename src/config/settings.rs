//! The settings: one table, from which values are read and from which `--help` and `docs/configuration.md` are made.

use std::fmt::Write;

/// What a setting is when it is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unset {
    /// As if it had been set to this.
    Value(&'static str),
    /// Something that no text says; in words.
    Words(&'static str),
}

/// One setting: an environment variable, or a line of the file `.env`.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// The variable's name.
    pub name: &'static str,
    /// What it is when it is not set.
    pub unset: Unset,
    /// What it does, unit included.
    pub about: &'static str,
    /// A value that one might give it.
    pub example: &'static str,
    /// Whether its value must not be shown.
    pub secret: bool,
}

/// Settings that belong together.
#[derive(Debug)]
pub struct Group {
    /// What they are about.
    pub title: &'static str,
    /// The settings.
    pub settings: &'static [&'static Setting],
}

/// A variable that a later version knows. Set, it is a fault: ignoring it silently would be worse.
#[derive(Debug)]
pub struct NotYet {
    /// The variable's name.
    pub name: &'static str,
    /// What this version does instead.
    pub instead: &'static str,
}

macro_rules! settings {
    ($($title:literal { $($name:ident: $unset:expr, $about:literal, example $example:literal $(, $secret:ident)?;)+ })+) => {
        $($(
            #[doc = $about]
            pub const $name: Setting = Setting {
                name: stringify!($name),
                unset: $unset,
                about: $about,
                example: $example,
                secret: settings!(@secret $($secret)?),
            };
        )+)+

        /// All settings.
        pub const GROUPS: &[Group] = &[$(Group { title: $title, settings: &[$(&$name),+] }),+];
    };
    (@secret secret) => { true };
    (@secret) => { false };
}

use Unset::{Value, Words};

settings! {
    "Where it keeps things" {
        DATABASE_URL: Words("`sqlite:` and DATA_DIR"), "The database: `sqlite:` and the folder of its files, or `postgres://` and the address of a database on PostgreSQL 15 or later, which several servers may share.", example "postgres://shop:secret@localhost/shop", secret;
        DATABASE_POOL: Value("16"), "Connections to PostgreSQL at most, beside one that writes stock and orders. SQLite takes no notice.", example "32";
        DATA_DIR: Value("./data"), "The folder of the database's files, when DATABASE_URL is not set. It is made when it is not there.", example "/var/lib/storekeeper";
        REDIS_URL: Words("carts are in the database alone"), "The Redis (7 or later) that shows open carts to other programs: `redis://user:password@host:port/number`, `rediss://` through TLS, `redis+unix:///path`, or a cluster by some of its nodes, `redis+cluster://user:password@host:port,host:port` (`rediss+cluster://` through TLS). It may be away: carts go on from the database.", example "redis://localhost:6379", secret;
    }
    "Other services" {
        AMQP_URL: Words("events stay inside the program"), "RabbitMQ 3.10 or later, which then carries the events: `amqp://` or `amqps://` and its address.", example "amqps://shop:secret@rabbit.example.org/shop", secret;
    }
    "Sign-in" {
        JWT_SECRET: Words("made once and kept in the database"), "The key that signs access tokens: 32 bytes or more.", example "a text of at least 32 bytes, from `openssl rand -hex 32`", secret;
        ACCESS_TOKEN_TTL: Value("7200"), "Life of an access token, seconds.", example "900";
        REFRESH_TOKEN_TTL: Value("2592000"), "Life of a refresh token, seconds.", example "604800";
        ADMIN_EMAIL: Value("admin@localhost"), "The first administrator, made at the first start.", example "ann@example.org";
        ADMIN_PASSWORD: Words("made at the first start and printed once"), "The first administrator's password, 8 to 128 characters.", example "correct horse battery staple", secret;
    }
    "The shop" {
        CURRENCY: Value("USD"), "The currency of all prices, ISO 4217. Not to be changed once there are prices.", example "EUR";
        TAX_RATE: Value("0"), "Tax on an order's subtotal, a decimal from 0 to 1, rounded half to even.", example "0.19";
        CART_TTL: Value("900"), "How long a cart holds its stock after its last change, seconds.", example "600";
        CART_MAX_AGE: Value("3600"), "How long a cart holds its stock after its first change, whatever happens, seconds.", example "7200";
        CART_MAX_LINES: Value("100"), "Lines of one cart at most.", example "20";
        CART_MAX_UNITS: Value("10000"), "Units of one cart at most, all lines together.", example "50";
        ORDER_PENDING_TTL: Words("kept for ever"), "After how many seconds an order that is not confirmed is cancelled and its units go back.", example "86400";
    }
    "HTTP" {
        BIND: Value("127.0.0.1:8081"), "The address and port to listen on; port 0 is any free one.", example "0.0.0.0:8080";
        HTTP_WORKERS: Words("one a core"), "Threads that serve requests.", example "4";
        NODE_NAME: Words("the machine's name and the process's number"), "What this server is called among others that share its database, in the list of the actors.", example "shop-1";
        REQUEST_DEADLINE_MS: Value("5000"), "How long a request may take before it is answered with 503, milliseconds.", example "2000";
        SHUTDOWN_GRACE: Value("0"), "For how long a server that is told to stop serves on while `/health/ready` is 503 already, so that a load balancer sees it and sends nothing more, seconds.", example "10";
        SHUTDOWN_LIMIT: Value("30"), "How long a stopping server may take after that to finish what it has begun, seconds.", example "10";
    }
    "Limits" {
        INVENTORY_MAILBOX: Value("4096"), "Messages that may wait for one product's stock; beyond it 503 at once.", example "1024";
        CART_MAILBOX: Value("64"), "Messages that may wait for one cart.", example "16";
        ORDERS_MAILBOX: Value("4096"), "Checkouts and changes of orders that may wait.", example "1024";
        JOURNAL_MAILBOX: Value("16384"), "Changes that may wait for the journal.", example "65536";
        JOURNAL_BATCH_MAX: Value("1024"), "Changes that go into one transaction at most.", example "256";
        EVENT_DELAY_MAX_MS: Value("5000"), "How long events may have to wait while a crowd places orders (eight or more at the same time): their buyers go first, milliseconds; 0 is not at all.", example "1000";
        ACTOR_QUARANTINE_AFTER: Value("5"), "After how many panics within ACTOR_QUARANTINE_WINDOW a product's or a cart's actor is not started again before an administrator says so; 0 is never.", example "10";
        ACTOR_QUARANTINE_WINDOW: Value("60"), "How long a panic counts, seconds.", example "300";
        ACTOR_BACKOFF_MAX_MS: Value("5000"), "How long an actor that panics again and again stays down at most before the next one starts, milliseconds; 0 starts it at once.", example "1000";
        ACTOR_HANG_LIMIT: Value("60"), "After how many seconds with a message that does not get done a product's or a cart's actor is ended; 0 is never.", example "120";
        IDLE_ACTOR_TTL: Value("300"), "After how many seconds without a message an actor is put away.", example "60";
    }
    "Mail" {
        SMTP_URL: Words("mails are kept and shown by GET /emails"), "The mail server: `smtps://user:password@host:465`, `smtp://` with `?tls=required` (STARTTLS) or, on a network of your own, without. The path is the name to greet with.", example "smtps://shop:secret@mail.example.org:465", secret;
        MAIL_SENDER: Value("Storekeeper <shop@localhost>"), "Whom mails come from.", example "The Tea Shop <hello@example.org>";
    }
    "How long things are kept" {
        CAPTURED_MAIL_RETENTION_DAYS: Value("30"), "Mails that are kept instead of sent (no SMTP_URL), days since they were made.", example "7";
        SENT_MAIL_RETENTION_DAYS: Value("90"), "Mails that were sent or given up, days since they were made. A mail that is still to be sent stays.", example "365";
        LOGIN_RETENTION_DAYS: Value("90"), "The login history, with addresses and user agents, days.", example "30";
        IDEMPOTENCY_RETENTION_DAYS: Value("1"), "Answers to requests with an `Idempotency-Key`, which a repeated one is given back, days.", example "3";
        MESSAGE_ID_RETENTION_DAYS: Value("30"), "The identifiers of messages that were done, by which one that comes again is recognised, days. At least as long as DEAD_LETTER_RETENTION_DAYS, and as a message may lie with the broker or a warehouse may send it again.", example "90";
        EVENT_RETENTION_DAYS: Value("7"), "Changes of orders in the outbox, days since their events were published. One whose events are not stays, and so do all behind it.", example "30";
        DEAD_LETTER_RETENTION_DAYS: Value("30"), "Messages that were put away in the database because a rule refused them (no AMQP_URL), days.", example "14";
        JOURNAL_BATCH_RETENTION_DAYS: Value("1"), "Marks of the journal's transactions, by which one that is sent again after a lost connection is recognised, days. Longer than the database may be away from one server and not from another.", example "3";
    }
    "Logging" {
        LOG: Value("info"), "What is logged, in the form of tracing's env-filter.", example "info,storekeeper=debug";
        LOG_FORMAT: Value("auto"), "text, json, or auto: text on a terminal, JSON otherwise.", example "json";
    }
    "Traces" {
        OTEL_EXPORTER_OTLP_ENDPOINT: Words("there are no traces"), "Where traces are sent, by OTLP over HTTP in protobuf: the collector's address, to which `/v1/traces` is appended. It may be away: traces are then lost, and nothing else.", example "http://localhost:4318";
        OTEL_EXPORTER_OTLP_HEADERS: Words("none"), "Headers to send along, `name=value` with commas between.", example "authorization=Basic c2hvcA%3D%3D", secret;
        OTEL_SERVICE_NAME: Value("storekeeper"), "What traces call this program.", example "tea-shop";
        OTEL_TRACES_SAMPLER_ARG: Value("1"), "The share of the requests that is traced, a decimal from 0 to 1. Where a caller says in `traceparent` whether it traces a request, we do as it does.", example "0.1";
    }
}

/// Variables of later versions.
pub const NOT_YET: &[NotYet] = &[
    NotYet { name: "RATE_LIMIT", instead: "requests are not limited by client address" },
    NotYet { name: "AUTH_RATE_LIMIT", instead: "sign-ins are not limited by client address" },
    NotYet { name: "HOLD_LIMIT_PER_ADDRESS", instead: "holds are not limited by client address" },
];

/// All settings, in the table's order.
pub fn all() -> impl Iterator<Item = &'static Setting> {
    GROUPS.iter().flat_map(|group| group.settings.iter().copied())
}

/// The settings as `--help` lists them.
#[must_use]
pub fn help() -> String {
    let mut text = String::from("Settings, each an environment variable or a line of the file .env in this folder:\n");
    for group in GROUPS {
        let _ = writeln!(text, "\n  {}", group.title);
        for setting in group.settings {
            let unset = match setting.unset {
                Value(value) => value,
                Words(words) => words,
            };
            let _ = writeln!(text, "    {:<28} {}", setting.name, setting.about.replace('`', ""));
            let _ = writeln!(text, "    {:<28} [unset: {}]", "", unset.replace('`', ""));
        }
    }
    text
}

/// The settings as a page of the documentation.
#[must_use]
pub fn page() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         Each setting is an environment variable, or a line `NAME=value` of the file `.env` in the folder that\n\
         the program is started in; the environment wins. An empty value is the same as none. At start every\n\
         fault is named at once, and the program exits with 2.\n\n\
         This page is made from the table in `src/config/settings.rs`: `cargo run -- settings > docs/configuration.md`.\n",
    );
    for group in GROUPS {
        let _ = writeln!(
            text,
            "\n## {}\n\n| variable | unset | what it does | example |\n| --- | --- | --- | --- |",
            group.title
        );
        for setting in group.settings {
            let unset = match setting.unset {
                Value(value) => format!("`{value}`"),
                Words(words) => words.to_owned(),
            };
            let example = if setting.example.contains('`') {
                setting.example.to_owned()
            } else {
                format!("`{}`", setting.example)
            };
            let _ = writeln!(text, "| `{}` | {unset} | {} | {example} |", setting.name, setting.about);
        }
    }
    text.push_str(
        "\n## Not in this version\n\nSet, each of these is a fault, so that nobody relies on what is not there.\n\n",
    );
    text.push_str("| variable | what this version does |\n| --- | --- |\n");
    for NotYet { name, instead } in NOT_YET {
        let _ = writeln!(text, "| `{name}` | {instead} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_variable_is_in_the_tables_twice() {
        let names: Vec<_> =
            all().map(|setting| setting.name).chain(NOT_YET.iter().map(|not_yet| not_yet.name)).collect();
        let unique: BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
    }

    #[test]
    fn help_and_page_name_every_setting() {
        let (help, page) = (help(), page());
        for setting in all() {
            assert!(help.contains(&format!("    {} ", setting.name)), "{}", setting.name);
            assert!(page.contains(&format!("| `{}` |", setting.name)), "{}", setting.name);
        }
    }
}
