//! The store on SQLite as a kind of database, and what only it can show.

use std::path::Path;
use std::sync::Arc;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::sqlite::{OpenError, SqliteOptions, SqliteStore};
use storekeeper::persistence::{Inventories, Mail, Upkeep};

use crate::shop::{Opened, Shop};

/// A new database in a folder of its own, which goes with it.
pub(crate) async fn open(clock: Clock) -> Opened {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(options(folder.path()), clock).await.expect("a new store");
    let (path, folder) = (folder.path().to_owned(), Arc::new(folder));
    let path_to_read = path.clone();
    Opened {
        store: Arc::new(store),
        corrupt: Box::new(move |statement| {
            let (path, _folder) = (path.clone(), Arc::clone(&folder));
            Box::pin(async move {
                let mut connection = past_the_rules(&path).await;
                sqlx::raw_sql(statement).execute(&mut connection).await.expect(statement);
            })
        }),
        number: Box::new(move |query| {
            let path = path_to_read.clone();
            Box::pin(async move {
                let mut connection = past_the_rules(&path).await;
                sqlx::query_scalar(query).fetch_one(&mut connection).await.expect(query)
            })
        }),
    }
}

pub(crate) fn options(folder: &Path) -> SqliteOptions {
    SqliteOptions { folder: folder.to_owned(), readers: 2 }
}

/// The database's file, made if it is not there.
pub(crate) async fn file(folder: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(folder.join("storekeeper.sqlite")).create_if_missing(true);
    options.connect().await.expect("the file")
}

async fn past_the_rules(folder: &Path) -> SqliteConnection {
    let mut connection = file(folder).await;
    sqlx::raw_sql("PRAGMA ignore_check_constraints = ON").execute(&mut connection).await.expect("no rules");
    connection
}

#[tokio::test]
async fn a_second_server_on_the_folder_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let inner = folder.path().join("made/with/its/parents");
    let first = SqliteStore::open(options(&inner), Clock::system()).await.expect("a store");
    let second = SqliteStore::open(options(&inner), Clock::system()).await;
    let error = second.expect_err("the folder is taken");
    assert!(matches!(&error, OpenError::Locked { folder } if *folder == inner), "{error:?}");
    assert!(error.to_string().contains(inner.to_str().expect("text")), "{error}");
    first.close().await;
    let third = SqliteStore::open(options(&inner), Clock::system()).await.expect("the folder is free");
    drop(third);
    SqliteStore::open(options(&inner), Clock::system()).await.expect("a dropped store frees the folder too");
}

#[tokio::test]
async fn a_folder_that_can_not_be_made_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").expect("a file");
    let error = SqliteStore::open(options(&file), Clock::system()).await.expect_err("not a folder");
    assert!(matches!(error, OpenError::Folder { .. }), "{error:?}");
}

/// A shop that is at work, and a copy of its folder as a crash would leave it.
async fn crashed(folder: &Path) -> (Shop, std::path::PathBuf) {
    let shop = Shop::open(async |clock| {
        let store = SqliteStore::open(options(folder), clock).await.expect("a store");
        Opened {
            store: Arc::new(store),
            corrupt: Box::new(|_| Box::pin(async {})),
            number: Box::new(|_| Box::pin(async { 0 })),
        }
    })
    .await;
    let lamp = shop.stocked("L-1", 10).await;
    shop.receive(&lamp, 5).await;
    let copy = folder.join("copy");
    std::fs::create_dir(&copy).expect("a folder");
    for file in ["storekeeper.sqlite", "storekeeper.sqlite-wal"] {
        std::fs::copy(folder.join(file), copy.join(file)).expect(file);
    }
    (shop, copy)
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shop, copy) = crashed(folder.path()).await;
    let product = shop.store.list_products(&crate::catalogue::ALL, &crate::shop::page(None, 1)).await.expect("a list");
    let inventory = product.rows[0].inventory.expect("stock");
    let after = SqliteStore::open(options(&copy), Clock::system()).await.expect("a store");
    let kept = after.inventory(inventory).await.expect("a read").expect("the stock");
    assert_eq!((kept.balance.on_hand, kept.balance.seq), (15, 2));
    shop.close().await;
}

#[tokio::test]
async fn a_snapshot_reads_beside_the_server_and_after_a_crash() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shop, copy) = crashed(folder.path()).await;
    for (what, place) in [("beside the server", folder.path()), ("after a crash", &copy)] {
        let snapshot = SqliteStore::open_snapshot(place).await.expect(what);
        let verdicts = snapshot.check().await.expect(what);
        assert!(verdicts.iter().all(|verdict| verdict.broken_count == 0), "{what}");
        assert_eq!(verdicts[1].checked, 2, "{what}: the rows that are in the log only");
        let mail = shop.mail("ann@example.org", storekeeper::persistence::records::EmailStatus::Queued);
        assert!(snapshot.insert_email(&mail).await.is_err(), "{what}: it only reads");
        snapshot.close().await;
    }
    shop.close().await;
    let snapshot = SqliteStore::open_snapshot(folder.path()).await.expect("after an orderly end");
    assert_eq!(snapshot.check().await.expect("verdicts")[1].checked, 2);
}

#[tokio::test]
async fn a_snapshot_of_nothing_or_of_another_version_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = SqliteStore::open_snapshot(folder.path()).await.expect_err("nothing there");
    assert!(matches!(error, OpenError::NoDatabase { .. }), "{error:?}");
    SqliteStore::open(options(folder.path()), Clock::system()).await.expect("a store").close().await;
    let mut connection = past_the_rules(folder.path()).await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'later', true, x'00', 0)";
    sqlx::raw_sql(newer).execute(&mut connection).await.expect("a row");
    let error = SqliteStore::open_snapshot(folder.path()).await.expect_err("a later version");
    assert!(matches!(error, OpenError::OtherVersion { .. }), "{error:?}");
    let error = SqliteStore::open(options(folder.path()), Clock::system()).await.expect_err("a later version");
    assert!(matches!(error, OpenError::Migration { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_and_readers_get_their_turn() {
    let shop = Shop::open(open).await;
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..64 {
        let store = Arc::clone(&shop.store);
        let mail =
            shop.mail(&format!("{number}@example.org"), storekeeper::persistence::records::EmailStatus::Captured);
        writers.spawn(async move {
            store.insert_email(&mail).await.expect("a mail");
            store.list_emails(&Default::default(), &crate::shop::page(None, 100)).await.expect("a list").rows.len()
        });
    }
    let seen = writers.join_all().await;
    assert!(seen.iter().all(|rows| *rows >= 1), "each reads what it wrote: {seen:?}");
    assert_eq!(shop.number("SELECT count(*) FROM emails").await, 64);
    shop.close().await;
}

#[tokio::test]
async fn what_is_there_twice_is_found() {
    let shop = Shop::open(open).await;
    let lamp = shop.stocked("L-1", 10).await;
    let cart = shop.cart(&[(&lamp, 1)]).await;
    let order = shop.check_out(&cart, crate::shop::new_user()).await;
    // SQLite can not drop a rule, but a table without it can take the table's place.
    shop.corrupt(
        "CREATE TABLE copy AS SELECT * FROM outbox; DROP TABLE outbox; ALTER TABLE copy RENAME TO outbox; \
         INSERT INTO outbox SELECT position + 1, order_id, sequence, from_status, to_status, at, leased_until, published_at, traceparent FROM outbox; \
         CREATE TABLE copy AS SELECT * FROM consumed_messages; DROP TABLE consumed_messages; \
         ALTER TABLE copy RENAME TO consumed_messages; \
         INSERT INTO consumed_messages VALUES ('send-email', 'm1', 1), ('send-email', 'm1', 2)",
    )
    .await;
    let verdicts = shop.store.check().await.expect("verdicts");
    let broken: Vec<_> = verdicts.iter().filter(|verdict| verdict.broken_count > 0).collect();
    let [events, once] = &broken[..] else { panic!("two rules: {broken:?}") };
    assert_eq!(events.broken, [order.id.to_string()]);
    assert_eq!((once.invariant, once.broken_count, once.broken.len()), (5, 2, 2));
    assert!(once.broken.contains(&"send-email/m1".to_owned()), "{once:?}");
    shop.close().await;
}
