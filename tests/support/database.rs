//! The database of a test's shop: the one place that says which kind it is.

use storekeeper::config::Config;
use storekeeper::persistence::Upkeep;
use storekeeper::persistence::records::Verdict;
use storekeeper::persistence::sqlite::SqliteStore;
use tempfile::TempDir;

/// A database of a test's own, which goes with it: SQLite in a folder.
pub(crate) struct Database {
    folder: TempDir,
}

impl Database {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    /// The configuration of a shop on it.
    pub(crate) fn config(&self) -> Config {
        Config::embedded(self.folder.path()).unwrap_or_else(|error| panic!("the defaults are usable: {error}"))
    }

    /// Opens it beside nobody, and sees to it that no rule of the books is broken.
    pub(crate) async fn assert_in_order(&self) {
        let store = SqliteStore::open_snapshot(self.folder.path()).await.expect("the database opens to read");
        let verdicts = store.check().await.expect("the books can be read");
        store.close().await;
        let broken: Vec<&Verdict> = verdicts.iter().filter(|verdict| verdict.broken_count > 0).collect();
        assert!(!verdicts.is_empty() && broken.is_empty(), "the books are not in order: {broken:#?}");
    }
}
