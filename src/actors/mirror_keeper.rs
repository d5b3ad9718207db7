//! Keeps the mirror of the carts in step with the database: connects, sees whether Redis is still there and has not
//! been emptied, and shows what it missed.
//!
//! A connection begins with a walk over all open carts; so does every loss of keys, which is noticed by marks that
//! this server sets and expects to find. Carts that were noted because a change could not be shown are read again
//! from the database. Whatever is written is guarded by the cart's version, so nothing here needs the carts to stand
//! still.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use uuid::Uuid;

use crate::domain::cart::Cart;
use crate::domain::ids::CartKey;
use crate::domain::timestamp::Timestamp;
use crate::persistence::redis::{MirrorConnection, MirrorError, RedisOptions, Shown};
use crate::persistence::{SharedStore, StoreError};

use super::mirror::{Noted, Shared};

/// How often it is looked whether Redis is there and complete, and what has been noted is shown.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// Shortest and longest wait before another try to connect.
const RECONNECT_PAUSE: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// Carts read from the database at a time.
const PAGE: u32 = 256;

/// The keeper.
pub(super) struct Keeper {
    options: RedisOptions,
    store: SharedStore,
    shared: Arc<Shared>,
    /// Tells this server's marks from others'.
    server: Uuid,
}

/// Why the mirror does not show everything.
#[derive(Debug, thiserror::Error)]
enum Behind {
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Keeper {
    pub(super) fn new(options: RedisOptions, store: SharedStore, shared: Arc<Shared>) -> Self {
        Self { options, store, shared, server: Uuid::now_v7() }
    }

    /// Keeps the mirror until the server ends.
    pub(super) async fn keep(self) {
        let keeper = Arc::new(self);
        loop {
            let working = Arc::clone(&keeper);
            match tokio::spawn(async move { working.work().await }).await {
                Ok(()) => return,
                Err(error) => tracing::error!(%error, "the keeper of the mirror died; another begins"),
            }
            if keeper.ends_within(LOOK_PERIOD).await {
                return;
            }
        }
    }

    async fn work(&self) {
        let mut pauses = pauses();
        loop {
            let connected = tokio::select! {
                () = self.shared.end.cancelled() => return,
                connected = MirrorConnection::open(&self.options, self.server) => connected,
            };
            let error = match connected {
                Ok(connection) => match self.serve(&connection, &mut pauses).await {
                    Ok(()) => return self.finish(&connection).await,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            self.shared.away(&error);
            if self.ends_within(pauses.next().unwrap_or(RECONNECT_PAUSE[1])).await {
                return;
            }
        }
    }

    /// Whether the server ends within so long.
    async fn ends_within(&self, pause: Duration) -> bool {
        tokio::time::timeout(pause, self.shared.end.cancelled()).await.is_ok()
    }

    /// Keeps the mirror by one connection, for as long as it works or until the server ends.
    async fn serve(&self, connection: &MirrorConnection, pauses: &mut ExponentialBackoff) -> Result<(), MirrorError> {
        self.shared.connected(connection.clone());
        let mut complete = false;
        loop {
            complete &= connection.mark().await?;
            match self.catch_up(connection, complete).await {
                Ok(()) => {
                    complete = true;
                    *pauses = self::pauses();
                }
                Err(Behind::Mirror(error)) => return Err(error),
                Err(Behind::Store(error)) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the mirror of the carts waits for the database");
                }
            }
            tokio::select! {
                () = self.shared.end.cancelled() => return Ok(()),
                () = tokio::time::sleep(LOOK_PERIOD) => {}
                () = self.shared.wake.notified() => {}
            }
        }
    }

    /// Shows what was noted and, unless the mirror is `complete` but for that, all open carts.
    async fn catch_up(&self, connection: &MirrorConnection, complete: bool) -> Result<(), Behind> {
        let overflowed = self.show_noted(connection).await?;
        if complete && !overflowed {
            return Ok(());
        }
        self.shared.begin_catching_up();
        let carts = tokio::select! {
            () = self.shared.end.cancelled() => return Ok(()),
            carts = self.show_open(connection) => carts?,
        };
        self.shared.end_catching_up();
        tracing::info!(carts, "the mirror shows all open carts");
        Ok(())
    }

    /// Shows the carts that have been noted. Gives whether there were more than could be noted.
    async fn show_noted(&self, connection: &MirrorConnection) -> Result<bool, Behind> {
        let Noted { carts, overflowed } = self.shared.take_noted();
        let carts: Vec<CartKey> = carts.into_iter().collect();
        let mut rest = carts.chunks(PAGE as usize);
        while let Some(page) = rest.next() {
            let shown = match self.store.carts(page).await {
                Ok(carts) => self.show_all(connection, &carts).await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = shown {
                let carts = page.iter().chain(rest.flatten()).copied().collect();
                self.shared.note_again(Noted { carts, overflowed });
                return Err(error);
            }
        }
        Ok(overflowed)
    }

    /// Shows all open carts, page by page; gives how many. One that changes meanwhile is shown by who changes it.
    async fn show_open(&self, connection: &MirrorConnection) -> Result<usize, Behind> {
        let (mut count, mut after) = (0, (Timestamp(i64::MIN), CartKey(Uuid::nil())));
        loop {
            let page = self.store.open_carts(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(count) };
            after = (last.expires_at, last.id.key);
            count += page.len();
            self.show_all(connection, &page).await?;
        }
    }

    /// Shows carts as they were just read. Where something newer is shown, either another server was faster or it is
    /// shown wrongly: what the database says *now* tells which.
    async fn show_all(&self, connection: &MirrorConnection, carts: &[Cart]) -> Result<(), Behind> {
        let mut newer: Vec<(CartKey, Shown)> = Vec::new();
        for (cart, shown) in carts.iter().zip(connection.show(&self.shared.images(carts)).await?) {
            if shown.is_newer() {
                newer.push((cart.id.key, shown));
            } else {
                self.shared.count(cart.id.key, &shown);
            }
        }
        if newer.is_empty() {
            return Ok(());
        }
        let keys: Vec<CartKey> = newer.iter().map(|(key, _)| *key).collect();
        for cart in self.store.carts(&keys).await? {
            for (_, seen) in newer.iter().filter(|(key, _)| *key == cart.id.key) {
                for image in self.shared.images(&[&cart]) {
                    let shown = connection.show_in_place_of(seen, &image).await?;
                    self.shared.count(cart.id.key, &shown);
                }
            }
        }
        Ok(())
    }

    /// The server ends: shows what is noted, and takes its marks away.
    async fn finish(&self, connection: &MirrorConnection) {
        let shown = self.show_noted(connection).await.map(|_| ());
        let unmarked = connection.unmark().await.map_err(Behind::from);
        if let Err(error) = shown.and(unmarked) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the mirror is left as it is; what it shows too much ends by itself");
        }
    }
}

fn pauses() -> ExponentialBackoff {
    let [shortest, longest] = RECONNECT_PAUSE;
    ExponentialBuilder::default()
        .with_min_delay(shortest)
        .with_max_delay(longest)
        .with_jitter()
        .without_max_times()
        .build()
}
