//! The mirror of carts in Redis, as the carts use it: each change is shown there before it is answered.
//!
//! A change waits for the mirror for [`WAIT_MAX`] at most, and not at all while Redis is known to be away. What could
//! not be shown is noted, and the keeper (`mirror_keeper.rs`) shows what the database says of it afterwards. The
//! mirror is never asked what is in a cart: an actor that begins compares, and where the two differ the database is
//! right.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::cart::Cart;
use crate::domain::ids::CartKey;
use crate::persistence::SharedStore;
use crate::persistence::clock::Clock;
use crate::persistence::redis::{CartImage, MirrorConnection, MirrorError, RedisOptions, Shown};

use super::mirror_keeper::Keeper;

/// How long a request waits for the mirror.
pub const WAIT_MAX: Duration = Duration::from_millis(50);
/// Carts that may be noted as not shown. What goes beyond is found among the open carts; of those that ended
/// meanwhile the keys end with their time.
const NOTED_MAX: usize = 65_536;
/// How long the keeper may take to finish when the server stops.
const CLOSING_WAIT_MAX: Duration = Duration::from_secs(2);

/// How the mirror does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorState {
    /// There is none.
    Off,
    /// It shows every open cart.
    Up,
    /// Redis is away, or what it missed is not shown yet.
    Degraded,
}

/// The mirror; clones are the same one.
#[derive(Clone)]
pub struct Mirror {
    shared: Option<Arc<Shared>>,
}

/// What carts and keeper share.
pub(super) struct Shared {
    clock: Clock,
    /// The connection, when there is one that works as far as anybody knows.
    connection: RwLock<Option<MirrorConnection>>,
    caught_up: AtomicBool,
    /// Whether it was said that Redis is away.
    told_away: AtomicBool,
    noted: Mutex<Noted>,
    repaired: AtomicU64,
    /// Has the keeper look now, not at the end of its pause.
    pub(super) wake: Notify,
    pub(super) end: CancellationToken,
    tasks: TaskTracker,
}

/// Carts of which the mirror may not show what the database says.
#[derive(Default)]
pub(super) struct Noted {
    pub(super) carts: HashSet<CartKey>,
    /// Whether there were more than could be noted.
    pub(super) overflowed: bool,
}

impl Mirror {
    /// No mirror: nothing is written and nothing waits.
    #[must_use]
    pub fn off() -> Self {
        Self { shared: None }
    }

    /// A mirror that is kept in step with the store, whether or not Redis is there yet. To be called on the runtime.
    #[must_use]
    pub fn open(options: RedisOptions, store: SharedStore, clock: Clock) -> Self {
        let shared = Arc::new(Shared {
            clock,
            connection: RwLock::default(),
            caught_up: AtomicBool::new(false),
            told_away: AtomicBool::new(false),
            noted: Mutex::default(),
            repaired: AtomicU64::new(0),
            wake: Notify::new(),
            end: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        shared.tasks.spawn(Keeper::new(options, store, Arc::clone(&shared)).keep());
        Self { shared: Some(shared) }
    }

    /// How it does.
    #[must_use]
    pub fn state(&self) -> MirrorState {
        match &self.shared {
            None => MirrorState::Off,
            Some(shared) if shared.is_caught_up() => MirrorState::Up,
            Some(_) => MirrorState::Degraded,
        }
    }

    /// How many carts were found to be shown otherwise than the database has them, and were repaired.
    #[must_use]
    pub fn repaired(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.repaired.load(Ordering::Relaxed))
    }

    /// Shows carts as they were just committed, then calls `then`: when they are shown, when that has taken too long, or
    /// at once when Redis is away. What is not shown then is shown later.
    pub(super) fn show(&self, carts: &[&Cart], then: impl FnOnce() + Send + 'static) {
        let Some(shared) = self.shared.clone().filter(|_| !carts.is_empty()) else { return then() };
        let Some(connection) = shared.connection() else {
            carts.iter().for_each(|cart| shared.note(cart.id.key));
            return then();
        };
        let images = shared.images(carts);
        let tasks = shared.tasks.clone();
        tasks.spawn(async move {
            drop(shared.show(&connection, &images).await);
            then();
        });
    }

    /// Sees whether the mirror shows a cart as it was just read from the database, and repairs it if not. Nobody
    /// waits for that.
    pub(super) fn compare(&self, cart: &Cart) {
        let Some(shared) = self.shared.clone() else { return };
        // What Redis missed is shown when it is back.
        let Some(connection) = shared.connection() else { return };
        let images = shared.images(&[cart]);
        let tasks = shared.tasks.clone();
        tasks.spawn(async move {
            let shown = shared.show(&connection, &images).await.unwrap_or_default();
            for (image, shown) in images.iter().zip(&shown).filter(|(_, shown)| !shown.is_newer()) {
                shared.count(image.key(), shown);
            }
        });
    }

    /// Nobody here knows how a cart stands: the mirror is to show what the database says.
    pub(super) fn recheck(&self, cart: CartKey) {
        if let Some(shared) = &self.shared {
            shared.note(cart);
        }
    }

    /// Shows what is noted, if Redis is there, and ends, at `deadline` at the latest.
    pub(super) async fn close(&self, deadline: Instant) {
        let Some(shared) = &self.shared else { return };
        shared.end.cancel();
        shared.tasks.close();
        let deadline = deadline.min(Instant::now() + CLOSING_WAIT_MAX);
        if timeout_at(deadline, shared.tasks.wait()).await.is_err() {
            tracing::warn!("the mirror of the carts was not finished; what it shows too much ends by itself");
        }
    }
}

impl Shared {
    /// Shows carts within [`WAIT_MAX`], and notes those that are not shown as they are: all, when Redis does not answer.
    async fn show(&self, connection: &MirrorConnection, images: &[CartImage]) -> Option<Vec<Shown>> {
        let shown = match tokio::time::timeout(WAIT_MAX, connection.show(images)).await {
            Ok(Ok(shown)) => shown,
            failed => {
                let error = failed.ok().and_then(Result::err);
                let error = error.as_ref().map(|error| error as &dyn std::error::Error);
                tracing::debug!(error, carts = images.len(), "carts are not mirrored in time");
                images.iter().for_each(|image| self.note(image.key()));
                self.wake.notify_one();
                return None;
            }
        };
        let newer = images.iter().zip(&shown).filter(|(_, shown)| shown.is_newer());
        newer.for_each(|(image, _)| self.note(image.key()));
        Some(shown)
    }

    /// What is to be shown of carts now.
    pub(super) fn images(&self, carts: &[impl Borrow<Cart>]) -> Vec<CartImage> {
        let now = self.clock.now();
        carts.iter().map(|cart| CartImage::of(cart.borrow(), now)).collect()
    }

    fn connection(&self) -> Option<MirrorConnection> {
        self.connection.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Acquire)
    }

    /// From now on changes are shown by this connection.
    pub(super) fn connected(&self, connection: MirrorConnection) {
        *self.connection.write().unwrap_or_else(PoisonError::into_inner) = Some(connection);
    }

    /// From now on nobody waits for Redis.
    pub(super) fn away(&self, error: &MirrorError) {
        drop(self.connection.write().unwrap_or_else(PoisonError::into_inner).take());
        self.caught_up.store(false, Ordering::Release);
        let error = error as &dyn std::error::Error;
        if self.told_away.swap(true, Ordering::Relaxed) {
            tracing::debug!(error, "carts are still not mirrored");
        } else {
            tracing::warn!(error, "carts are not mirrored; they go on from the database");
        }
    }

    /// The mirror does not show all open carts.
    pub(super) fn begin_catching_up(&self) {
        self.caught_up.store(false, Ordering::Release);
    }

    /// The mirror shows all open carts.
    pub(super) fn end_catching_up(&self) {
        self.told_away.store(false, Ordering::Relaxed);
        self.caught_up.store(true, Ordering::Release);
    }

    /// A cart was compared with what the database says of it: counts it when it was not the same.
    pub(super) fn count(&self, cart: CartKey, shown: &Shown) {
        if !shown.is_same() {
            self.repaired.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%cart, ?shown, "the mirror did not show a cart as the database has it");
        }
    }

    fn note(&self, cart: CartKey) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.carts.len() < NOTED_MAX {
            noted.carts.insert(cart);
        } else {
            noted.overflowed = true;
        }
    }

    /// Takes what has been noted.
    pub(super) fn take_noted(&self) -> Noted {
        std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes again what could not be shown.
    pub(super) fn note_again(&self, rest: Noted) {
        rest.carts.into_iter().for_each(|cart| self.note(cart));
        if rest.overflowed {
            self.noted.lock().unwrap_or_else(PoisonError::into_inner).overflowed = true;
        }
    }
}
