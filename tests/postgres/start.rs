//! How servers start on a database: several at the same moment, or on one that will not do.

use storekeeper::app::App;
use storekeeper::config::StoreConfig;
use storekeeper::persistence::Upkeep;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::postgres::{OpenError, PostgresOptions, PostgresStore};

use crate::node::Node;
use crate::nodes::config;
use crate::server::{Database, connect};

fn options(url: &str) -> PostgresOptions {
    PostgresOptions { url: url.to_owned(), pool: 2 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_start_at_the_same_moment_on_an_empty_database() {
    let database = Database::new();
    let (first, second) = tokio::join!(App::build(config(&database)), App::build(config(&database)));
    let apps = [first.expect("it serves"), second.expect("it serves")];
    for app in &apps {
        let ready = reqwest::get(format!("http://{}/health/ready", app.address())).await.expect("an answer");
        assert_eq!(ready.status(), 200);
    }
    let mut past = connect(&database.url).await.expect("the database");
    for (query, what) in [
        ("SELECT count(*) FROM _sqlx_migrations WHERE success AND version = 1", "one has migrated"),
        ("SELECT count(*) FROM users WHERE role = 'ADMIN'", "one has made the administrator"),
    ] {
        let count: i64 = sqlx::query_scalar(query).fetch_one(&mut past).await.expect(query);
        assert_eq!(count, 1, "{what}");
    }
    assert_eq!(apps.iter().filter(|app| app.first_admin().is_some()).count(), 1, "and only that one tells of them");
    for app in apps {
        app.stop().await.expect("a clean end");
    }
    Node::on(&database.url).await.assert_in_order().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_another_version_is_refused() {
    let database = Database::new();
    let error = PostgresStore::open_snapshot(options(&database.url)).await.expect_err("nothing there");
    assert!(matches!(error, OpenError::OtherVersion { .. }), "{error:?}");
    PostgresStore::open(options(&database.url), Clock::system()).await.expect("a store").close().await;
    PostgresStore::open_snapshot(options(&database.url)).await.expect("its own version").close().await;

    let mut past = connect(&database.url).await.expect("the database");
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'later', true, '', 0)";
    sqlx::raw_sql(newer).execute(&mut past).await.expect("a row");
    let error = PostgresStore::open_snapshot(options(&database.url)).await.expect_err("a later version");
    assert!(matches!(error, OpenError::OtherVersion { .. }), "{error:?}");
    let error = PostgresStore::open(options(&database.url), Clock::system()).await.expect_err("a later version");
    assert!(matches!(error, OpenError::Migration { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_the_password() {
    let url = "postgres://shop:pw-that-is-secret@127.0.0.1:1/books";
    let error = PostgresStore::open(options(url), Clock::system()).await.expect_err("nobody listens");
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
    let text = format!("{error} {error:?} {}", StoreConfig::Postgres(options(url)));
    assert!(error.to_string().contains("books at 127.0.0.1:1") && !text.contains("pw-that-is-secret"), "{text}");
}
