//! A database as an earlier version left it.
//!
//! Until `outbox_of_changes` each message was a row of the outbox.

use sqlx::Connection;
use sqlx::migrate::Migrator;
use storekeeper::domain::ids::OrderId;
use storekeeper::domain::order::OrderStatus;
use storekeeper::domain::timestamp::Timestamp;
use storekeeper::persistence::Outbox;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::postgres::{PostgresOptions, PostgresStore};
use storekeeper::persistence::records::OutboxRecord;
use storekeeper::persistence::sqlite::SqliteStore;
use uuid::Uuid;

use crate::server::{Database, connect};
use crate::sqlite::{file, options};

/// The last version of each schema before the change.
const POSTGRES_BEFORE: i64 = 5;
const SQLITE_BEFORE: i64 = 3;

/// Orders that are named by a letter each. `ID` is the database's own.
///
/// Of `d` all but the last message were removed after their time; `a` is told whole; of `b` one message waits; of `c` all do.
const MESSAGES: &str = "
    UPDATE outbox_horizon SET position = 2, at = 10;
    INSERT INTO outbox (position, id, order_id, queue, payload, at, published_at, traceparent) OVERRIDING VALUES
        (3, ID(03), ID(0d), 'clear-cart', '{}', 10, 11, NULL),
        (4, ID(04), ID(0a), 'order-status', '{\"from\":null,\"to\":\"PENDING\",\"sequence\":1}', 20, 25, NULL),
        (5, ID(05), ID(0a), 'send-email', '{\"id\":\"a\"}', 20, 26, NULL),
        (6, ID(06), ID(0a), 'clear-cart', '{}', 20, 25, NULL),
        (7, ID(07), ID(0a), 'order-status', '{\"from\":\"PENDING\",\"to\":\"CONFIRMED\",\"sequence\":2}', 21, 27, NULL),
        (8, ID(08), ID(0b), 'order-status', '{\"from\":null,\"to\":\"PENDING\",\"sequence\":1}', 30, 35, NULL),
        (9, ID(09), ID(0b), 'send-email', '{\"id\":\"b\"}', 30, 35, NULL),
        (10, ID(10), ID(0b), 'clear-cart', '{}', 30, NULL, NULL),
        (11, ID(11), ID(0c), 'order-status', '{\"from\":null,\"to\":\"PENDING\",\"sequence\":1}', 40, NULL, 'a trace'),
        (12, ID(12), ID(0c), 'send-email', '{\"id\":\"c\"}', 40, NULL, 'a trace'),
        (13, ID(13), ID(0c), 'clear-cart', '{}', 40, NULL, 'a trace'),
        (14, ID(14), ID(0c), 'order-status', '{\"from\":\"PENDING\",\"to\":\"CANCELLED\",\"sequence\":2}', 41, NULL, NULL)";
/// A change that is made after the migration.
const LATER: &str = "INSERT INTO outbox (order_id, sequence, from_status, to_status, at)
    VALUES (ID(0b), 2, 'PENDING', 'CONFIRMED', 50)";
/// Of all rows the position, the last byte of the order, the change's number, and when it was published.
type Row = (i64, String, i64, Option<i64>);

fn in_postgres(text: &str) -> String {
    written(text, "OVERRIDING SYSTEM VALUE VALUES", |digits| format!("'{digits}'::uuid"))
}

fn in_sqlite(text: &str) -> String {
    written(text, "VALUES", |digits| format!("x'{digits}'"))
}

/// The text with what is the database's own; an identifier is 16 times the same byte.
fn written(text: &str, values: &str, id: impl Fn(&str) -> String) -> String {
    let mut text = text.replace("OVERRIDING VALUES", values);
    for byte in 0..=u8::MAX {
        let digits = format!("{byte:02x}");
        text = text.replace(&format!("ID({digits})"), &id(&digits.repeat(16)));
    }
    text
}

fn id(byte: u8) -> Uuid {
    Uuid::from_bytes([byte; 16])
}

/// What waits is told, of a placed order all of it.
async fn assert_claims(store: &impl Outbox) {
    let placed = |position, letter, at, traceparent: Option<&str>| OutboxRecord {
        position,
        order: OrderId(id(letter)),
        sequence: 1,
        from: None,
        to: OrderStatus::Pending,
        at: Timestamp(at),
        traceparent: traceparent.map(str::to_owned),
    };
    let cancelled = OutboxRecord {
        position: 14,
        sequence: 2,
        from: Some(OrderStatus::Pending),
        to: OrderStatus::Cancelled,
        ..placed(14, 0x0c, 41, None)
    };
    let wanted = [placed(10, 0x0b, 30, None), placed(13, 0x0c, 40, Some("a trace")), cancelled];
    let claimed = store.claim_changes(Timestamp(60), Timestamp(70), 10).await.expect("a claim");
    assert_eq!(claimed, wanted);
}

fn assert_rows(rows: &[Row]) {
    let row = |position, order: &str, sequence, published_at| (position, order.to_owned(), sequence, published_at);
    let wanted = [
        row(3, "0d", 1, Some(11)),
        row(6, "0a", 1, Some(26)),
        row(7, "0a", 2, Some(27)),
        row(10, "0b", 1, None),
        row(13, "0c", 1, None),
        row(14, "0c", 2, None),
        row(15, "0b", 2, None),
    ];
    assert_eq!(rows, wanted);
}

async fn migrator(folder: &str) -> Migrator {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
    Migrator::new(folder).await.expect("the migrations")
}

#[tokio::test]
async fn messages_in_the_outbox_become_changes_on_postgres() {
    let database = Database::new();
    let mut connection = connect(&database.url).await.expect("the database");
    migrator("postgres").await.run_to(POSTGRES_BEFORE, &mut connection).await.expect("the version before");
    let before = sqlx::AssertSqlSafe(in_postgres(MESSAGES));
    sqlx::raw_sql(before).execute(&mut connection).await.expect("what it wrote");

    let options = PostgresOptions { url: database.url.clone(), pool: 2 };
    let store = PostgresStore::open(options, Clock::system()).await.expect("this version");
    let later = sqlx::AssertSqlSafe(in_postgres(LATER));
    sqlx::raw_sql(later).execute(&mut connection).await.expect("a change");
    let rows = "SELECT position, right(order_id::text, 2), sequence, published_at FROM outbox ORDER BY position";
    assert_rows(&sqlx::query_as(rows).fetch_all(&mut connection).await.expect("rows"));
    sqlx::raw_sql("DELETE FROM outbox WHERE position = 15").execute(&mut connection).await.expect("removed");
    assert_claims(&store).await;
    connection.close().await.expect("closed");
}

#[tokio::test]
async fn messages_in_the_outbox_become_changes_on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut connection = file(folder.path()).await;
    migrator("sqlite").await.run_to(SQLITE_BEFORE, &mut connection).await.expect("the version before");
    let before = sqlx::AssertSqlSafe(in_sqlite(MESSAGES));
    sqlx::raw_sql(before).execute(&mut connection).await.expect("what it wrote");

    let store = SqliteStore::open(options(folder.path()), Clock::system()).await.expect("this version");
    let later = sqlx::AssertSqlSafe(in_sqlite(LATER));
    sqlx::raw_sql(later).execute(&mut connection).await.expect("a change");
    let rows =
        "SELECT position, lower(substr(hex(order_id), 31)), sequence, published_at FROM outbox ORDER BY position";
    assert_rows(&sqlx::query_as(rows).fetch_all(&mut connection).await.expect("rows"));
    sqlx::raw_sql("DELETE FROM outbox WHERE position = 15").execute(&mut connection).await.expect("removed");
    assert_claims(&store).await;
    connection.close().await.expect("closed");
}
