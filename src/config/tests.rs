//! What the settings are read as, and how faults are told.

use std::collections::HashMap;

use secrecy::ExposeSecret;

use super::*;

fn read(values: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let values: HashMap<_, _> = values.iter().copied().collect();
    Config::read(|name| values.get(name).map(|value| (*value).to_owned()))
}

fn faults(values: &[(&str, &str)]) -> Vec<Fault> {
    read(values).err().map(|error| error.faults).unwrap_or_default()
}

#[test]
fn nothing_needs_to_be_set() {
    let config = read(&[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.http.bind.to_string(), "127.0.0.1:8081");
    assert_eq!(config.store.to_string(), "./data (SQLite)");
    assert_eq!(config.shop.lifetime.ttl, Duration::from_secs(900));
    assert_eq!(config.shop.currency.code(), "USD");
    assert_eq!(config.tokens.access_ttl, Duration::from_secs(7200));
    assert!(config.tokens.secret.is_none() && config.order_pending_ttl.is_none());
    assert!(config.http.workers >= 1);
}

#[test]
fn what_is_set_counts_and_empty_is_not_set() {
    let config = read(&[
        ("DATABASE_URL", "sqlite:/srv/shop"),
        ("CART_TTL", "60"),
        ("CART_MAX_AGE", ""),
        ("REDIS_URL", ""),
        ("ORDER_PENDING_TTL", "86400"),
        ("TAX_RATE", "0.19"),
        ("JWT_SECRET", "0123456789abcdef0123456789abcdef"),
        ("MAIL_SENDER", "The Tea Shop <hello@example.org>"),
        ("LOG_FORMAT", "json"),
    ]);
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.store.to_string(), "/srv/shop (SQLite)");
    assert_eq!(config.shop.lifetime.ttl, Duration::from_secs(60));
    assert_eq!(config.shop.lifetime.max_age, Duration::from_secs(3600));
    assert_eq!(config.order_pending_ttl, Some(Duration::from_secs(86_400)));
    assert_eq!(config.tokens.secret.map(|key| key.expose_secret().len()), Some(32));
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn every_fault_is_named_at_once() {
    let found = faults(&[
        ("BIND", "localhost"),
        ("CART_TTL", "soon"),
        ("CART_MAX_UNITS", "0"),
        ("CURRENCY", "usd"),
        ("TAX_RATE", "19%"),
        ("ADMIN_EMAIL", "ann"),
        ("LOG", "storekeeper=loud"),
        ("LOG_FORMAT", "xml"),
        ("HTTP_WORKERS", "0"),
        ("ORDER_PENDING_TTL", "-1"),
        ("MAIL_SENDER", "Ann\r\nBcc: b@example.org <a@example.org>"),
        ("AMQP_URL", "amqp://user:hidden@example.org:rabbit"),
    ]);
    let mut names: Vec<_> = found.iter().map(|fault| fault.variable).collect();
    names.sort_unstable();
    let expected = [
        "ADMIN_EMAIL",
        "AMQP_URL",
        "BIND",
        "CART_MAX_UNITS",
        "CART_TTL",
        "CURRENCY",
        "HTTP_WORKERS",
        "LOG",
        "LOG_FORMAT",
        "MAIL_SENDER",
        "ORDER_PENDING_TTL",
        "TAX_RATE",
    ];
    assert_eq!(names, expected);
    let text = ConfigError { faults: found }.to_string();
    assert!(text.contains(r#"CART_TTL is "soon": it must be a whole number of seconds from 1 to 86400"#), "{text}");
    assert!(text.starts_with("the configuration has 12 faults:\n"), "{text}");
    assert!(!text.contains("hidden"), "{text}");
}

#[test]
fn settings_must_fit_each_other() {
    for (values, variable) in [
        ([("CART_TTL", "3601"), ("CART_MAX_AGE", "3600")], "CART_TTL"),
        ([("ACCESS_TOKEN_TTL", "601"), ("REFRESH_TOKEN_TTL", "600")], "ACCESS_TOKEN_TTL"),
        ([("JOURNAL_BATCH_MAX", "65"), ("JOURNAL_MAILBOX", "64")], "JOURNAL_BATCH_MAX"),
        ([("SHUTDOWN_LIMIT", "2"), ("REQUEST_DEADLINE_MS", "2001")], "SHUTDOWN_LIMIT"),
        ([("DATA_DIR", "a"), ("DATABASE_URL", "sqlite:b")], "DATA_DIR"),
    ] {
        let found = faults(&values);
        assert_eq!(found.iter().map(|fault| fault.variable).collect::<Vec<_>>(), [variable]);
    }
    assert!(read(&[("CART_TTL", "3600"), ("CART_MAX_AGE", "3600")]).is_ok());
}

#[test]
fn things_are_kept_for_days() {
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let config = read(&[]).unwrap_or_else(|error| panic!("{error}"));
    let unset = Retention {
        captured_mails: days(30),
        sent_mails: days(90),
        logins: days(90),
        idempotency_keys: days(1),
        message_ids: days(30),
        published_events: days(7),
        dead_letters: days(30),
        journal_batches: days(1),
    };
    assert_eq!(config.retention, unset);
    let config = read(&[
        ("CAPTURED_MAIL_RETENTION_DAYS", "1"),
        ("SENT_MAIL_RETENTION_DAYS", "2"),
        ("LOGIN_RETENTION_DAYS", "3"),
        ("IDEMPOTENCY_RETENTION_DAYS", "4"),
        ("MESSAGE_ID_RETENTION_DAYS", "8"),
        ("EVENT_RETENTION_DAYS", "6"),
        ("DEAD_LETTER_RETENTION_DAYS", "7"),
        ("JOURNAL_BATCH_RETENTION_DAYS", "3660"),
    ]);
    let set = Retention {
        captured_mails: days(1),
        sent_mails: days(2),
        logins: days(3),
        idempotency_keys: days(4),
        message_ids: days(8),
        published_events: days(6),
        dead_letters: days(7),
        journal_batches: days(3_660),
    };
    assert_eq!(config.unwrap_or_else(|error| panic!("{error}")).retention, set);
}

#[test]
fn nothing_is_kept_for_less_than_it_is_needed() {
    for (variable, value) in [
        // The contract says 24 hours.
        ("IDEMPOTENCY_RETENTION_DAYS", "0"),
        ("MESSAGE_ID_RETENTION_DAYS", "6"),
        ("EVENT_RETENTION_DAYS", "0.5"),
        ("CAPTURED_MAIL_RETENTION_DAYS", "0"),
        ("JOURNAL_BATCH_RETENTION_DAYS", "3661"),
    ] {
        let found = faults(&[(variable, value), ("DEAD_LETTER_RETENTION_DAYS", "1")]);
        assert_eq!(found.iter().map(|fault| fault.variable).collect::<Vec<_>>(), [variable]);
        assert!(found[0].right.starts_with("it must be a whole number of days from "), "{found:?}");
    }
    let found = faults(&[("MESSAGE_ID_RETENTION_DAYS", "29")]);
    assert!(found.len() == 1 && found[0].right.contains("DEAD_LETTER_RETENTION_DAYS"), "{found:?}");
}

#[test]
fn secrets_are_not_shown() {
    let short = "short-but-secret";
    let found =
        faults(&[("JWT_SECRET", short), ("ADMIN_PASSWORD", "seven77"), ("DATABASE_URL", "postgres://u:pw@h:port/d")]);
    assert_eq!(found.len(), 3);
    let text = ConfigError { faults: found }.to_string();
    for secret in [short, "seven77", "pw@h"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(text.contains("JWT_SECRET (its value is not shown): it must be 32 bytes or more"), "{text}");
}

#[test]
fn postgresql_is_shown_without_its_password() {
    let url = "postgresql://shop:pw@db.example.org/books?sslmode=require";
    let config = read(&[("DATABASE_URL", url), ("DATABASE_POOL", "3")]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.store.to_string(), "books at db.example.org:5432 (PostgreSQL)");
    let StoreConfig::Postgres(options) = config.store else { panic!("not PostgreSQL") };
    assert_eq!((options.url.as_str(), options.pool), (url, 3));
    assert_eq!(faults(&[("DATABASE_POOL", "0")]).len(), 1);
}

#[test]
fn redis_is_a_server_or_a_cluster() {
    let url = "redis+cluster://shop:pw@one.example.org:7000,two.example.org";
    let redis = read(&[("REDIS_URL", url)]).ok().and_then(|config| config.redis).map(|redis| redis.to_string());
    assert_eq!(redis.as_deref(), Some("one.example.org:7000, two.example.org:6379 (cluster)"));
    let faults = faults(&[("REDIS_URL", "http://shop:pw@cache")]);
    assert_eq!(faults.len(), 1);
    assert!(!ConfigError { faults }.to_string().contains("pw"));
}

#[test]
fn the_broker_is_shown_without_its_password() {
    let config = read(&[("AMQP_URL", "amqp://shop:pw@rabbit.example.org/shop")]);
    let broker = config.unwrap_or_else(|error| panic!("{error}")).broker.expect("a broker");
    assert_eq!(broker.place(), "shop at rabbit.example.org:5672");
    assert_eq!(faults(&[("AMQP_URL", "redis://h")])[0].given, None);
}

#[test]
fn other_databases_are_refused() {
    for url in ["mysql://x", "sqlite:", "sqlite::memory:", "sqlite://data?mode=ro", "./data"] {
        assert_eq!(faults(&[("DATABASE_URL", url)]).len(), 1, "{url}");
    }
}

#[test]
fn a_value_that_is_not_utf_8_is_refused() {
    assert_eq!(faults(&[("DATA_DIR", "da\u{fffd}ta")]).len(), 1);
}

#[test]
fn the_settings_examples_are_usable() {
    for setting in settings::all() {
        let values = [(setting.name, setting.example), ("CART_MAX_AGE", "86400")];
        let values = if setting.name == "CART_MAX_AGE" { &values[..1] } else { &values[..] };
        if let Err(error) = read(values) {
            panic!("{error}");
        }
    }
}

#[test]
fn a_test_has_its_own_folder_and_port() {
    let config = Config::embedded(Path::new("elsewhere")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.store.to_string(), "elsewhere (SQLite)");
    assert_eq!(config.http.bind.port(), 0);
}

#[test]
fn traces_go_to_the_collector_that_is_named() {
    assert!(read(&[("OTEL_SERVICE_NAME", "tea-shop")]).unwrap_or_else(|error| panic!("{error}")).traces.is_none());
    for (given, whole) in [
        ("http://localhost:4318", "http://localhost:4318/v1/traces"),
        ("https://traces.example.org/shop/", "https://traces.example.org/shop/v1/traces"),
    ] {
        let config = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", given),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b, X-Other = c=d"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ]);
        let traces = config.unwrap_or_else(|error| panic!("{error}")).traces.expect("traces");
        assert_eq!(
            (traces.endpoint.as_str(), traces.service_name.as_str(), traces.share),
            (whole, "storekeeper", 0.25)
        );
        let headers = [("x-key", "a b"), ("x-other", "c=d")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(traces.headers, headers.into());
    }
}

#[test]
fn traces_that_can_not_be_sent_are_faults() {
    for (variable, bad) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://localhost:4317"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318/?a=b"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=secret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=secret%0A"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_TRACES_SAMPLER_ARG", "NaN"),
    ] {
        let found = faults(&[(variable, bad)]);
        assert_eq!(found.iter().map(|fault| fault.variable).collect::<Vec<_>>(), [variable], "{bad}");
        assert!(!found[0].to_string().contains("secret"), "{}", found[0]);
    }
}
