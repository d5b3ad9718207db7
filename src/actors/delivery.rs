//! Sending the queued mails: which one, when again, and when no more.
//!
//! A mail is claimed by a lease that is longer than its offer to the server may take, so that of several servers one
//! sends it; who has lost the lease is told so before anything is sent. Then the mail counts as unanswered until the
//! server's answer is kept. A mail whose answer never came is handed over once more and not again: its buyer gets it
//! twice at most, with the same `Message-ID`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;

use crate::messaging::letter::Letter;
use crate::messaging::smtp::{Courier, DeliveryError, SmtpOptions};
use crate::persistence::clock::Clock;
use crate::persistence::records::{Email, FailedTry};
use crate::persistence::{SharedStore, StoreError};

use super::faults::{Faults, Moment};
use super::supervision::{ActorKind, Identity, Panicked};

/// In whose name mails are sent.
const MAILER: Identity = Identity { kind: ActorKind::Mailer, key: None };
/// Times that a mail is handed over without an answer at most.
const UNANSWERED_MAX: i64 = 2;
/// How much longer than an offer a claim lasts: for the database, and for a busy machine.
const CLAIM_MARGIN: Duration = Duration::from_secs(30);
/// How often a server that answers is asked whether it still does, when there is no mail.
const IDLE_PROBE_PERIOD: Duration = Duration::from_secs(60);
/// The first and the longest wait before the database is told again what the mail server said.
const MARK_DELAYS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Mails on their way.
type Sending = JoinSet<Result<(), Panicked>>;

/// When a mail is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryRules {
    /// Tries in all; after the last one the mail is given up.
    pub tries: u32,
    /// The wait after the first try; each is twice the one before, and up to twice as long by chance.
    pub delay_min: Duration,
    /// The longest wait, before chance.
    pub delay_max: Duration,
    /// For how long the database may be away when the server's answer is to be kept. After that a mail that was sent
    /// counts as unanswered.
    pub mark_limit: Duration,
}

impl Default for RetryRules {
    /// Twelve tries, the last one two and a half to five hours after the first.
    fn default() -> Self {
        Self {
            tries: 12,
            delay_min: Duration::from_secs(5),
            delay_max: Duration::from_secs(3_600),
            mark_limit: Duration::from_secs(300),
        }
    }
}

impl RetryRules {
    /// How long to wait after so many tries; `None` when that was the last one.
    fn delay_after(&self, tries: i64) -> Option<Duration> {
        let before = usize::try_from(tries.max(1) - 1).ok()?;
        let waits = usize::try_from(self.tries).ok()?.saturating_sub(1);
        let backoff = ExponentialBuilder::new()
            .with_min_delay(self.delay_min)
            .with_max_delay(self.delay_max)
            .with_max_times(waits)
            .with_jitter();
        if before < waits { backoff.build().nth(before) } else { None }
    }
}

/// What a try came to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The server has the mail.
    Sent,
    /// The server does not have it, or nobody knows; what is left of it.
    Failed(FailedTry),
    /// Somebody else has claimed it.
    Lost,
}

/// Sends mails, so many at a time.
pub struct Delivery {
    store: SharedStore,
    clock: Clock,
    courier: Courier,
    rules: RetryRules,
    /// One a mail on its way.
    places: Arc<Semaphore>,
    more: Notify,
    stopping: CancellationToken,
    faults: Faults,
}

impl Delivery {
    /// Sends to the server of `smtp`, by `rules`.
    #[must_use]
    pub(super) fn new(store: SharedStore, clock: Clock, smtp: SmtpOptions, rules: RetryRules, faults: Faults) -> Self {
        let places = Arc::new(Semaphore::new(smtp.sends_max));
        let (courier, more, stopping) = (Courier::new(smtp), Notify::new(), CancellationToken::new());
        Self { store, clock, courier, rules, places, more, stopping, faults }
    }

    /// Whether the mail server answered when it was last spoken to.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.courier.is_up()
    }

    /// There may be more mails.
    pub(super) fn look(&self) {
        self.more.notify_one();
    }

    /// Sends until nothing is due and nothing is on its way.
    pub(super) async fn run(self: &Arc<Self>) {
        let mut sending = Sending::new();
        loop {
            let begun = if self.stopping.is_cancelled() { 0 } else { self.begin(&mut sending).await };
            if begun > 0 {
                continue;
            }
            if sending.is_empty() {
                return;
            }
            tokio::select! {
                ended = sending.join_next() => if let Some(Ok(Err(panicked))) = ended {
                    // That ends the run, so that it is seen and counted. The other mails go on by themselves.
                    sending.detach_all();
                    panicked.resume();
                },
                () = self.more.notified() => {}
            }
        }
    }

    /// Claims as many due mails as there are free places, and begins to send them; gives how many.
    async fn begin(self: &Arc<Self>, sending: &mut Sending) -> usize {
        let mut places: Vec<OwnedSemaphorePermit> = Vec::new();
        while let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            places.push(place);
        }
        let Ok(free @ 1..) = u32::try_from(places.len()) else { return 0 };
        let now = self.clock.now();
        let lease_until = now.plus(self.courier.options().offer_limit + CLAIM_MARGIN);
        let claimed = match self.store.claim_emails(now, lease_until, free).await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "mails wait for the database");
                return 0;
            }
        };
        let begun = claimed.len();
        for (email, place) in claimed.into_iter().zip(places) {
            let delivery = Arc::clone(self);
            let deliver = async move {
                delivery.deliver(&email).await;
                drop(place);
            };
            sending.spawn(MAILER.watch(deliver, |_| {}));
        }
        begun
    }

    /// Tries a mail once, and keeps what it came to.
    async fn deliver(&self, email: &Email) {
        let id = email.mail.id;
        let outcome = self.send(email).await;
        self.faults.pass(ActorKind::Mailer, Moment::After, None).await;
        match outcome {
            Outcome::Sent => {
                tracing::debug!(mail = %id, attempt = email.attempts, "a mail is sent");
                self.keep(|| self.store.email_done(id, false, self.clock.now())).await;
            }
            Outcome::Failed(failed) => {
                let (attempt, error) = (failed.attempt, failed.error.as_str());
                match failed.retry_at {
                    Some(retry_at) => tracing::info!(mail = %id, attempt, error, %retry_at, "a mail is not sent yet"),
                    None => tracing::warn!(mail = %id, attempt, error, "a mail is given up"),
                }
                self.keep(|| self.store.email_failed(id, &failed)).await;
            }
            Outcome::Lost => tracing::warn!(mail = %id, "a mail was claimed by somebody else meanwhile"),
        }
    }

    async fn send(&self, email: &Email) -> Outcome {
        let given_up = |error: String, unanswered| {
            Outcome::Failed(FailedTry { attempt: email.attempts, error, retry_at: None, unanswered })
        };
        if email.unanswered >= UNANSWERED_MAX {
            // Whoever handed it over the last time died before the answer.
            let error = "the mail server got the mail twice and did not say whether it took it".to_owned();
            return given_up(error, email.unanswered);
        }
        let letter = match Letter::of(&email.mail) {
            Ok(letter) => letter,
            Err(error) => return given_up(error.to_string(), email.unanswered),
        };
        let offer = match self.courier.offer(&letter).await {
            Ok(offer) => offer,
            Err(error) => return self.failed(email, &error),
        };
        let lease_until = self.clock.now().plus(self.courier.options().answer_limit + self.rules.mark_limit);
        match self.store.email_handed_over(email.mail.id, email.attempts, lease_until).await {
            Ok(true) => {}
            Ok(false) => return Outcome::Lost,
            Err(error) => return self.failed(email, &DeliveryError::NotNow(error.to_string())),
        }
        self.faults.pass(ActorKind::Mailer, Moment::During, None).await;
        match offer.hand_over().await {
            Ok(()) => Outcome::Sent,
            Err(error) => self.failed(email, &error),
        }
    }

    /// What a failed try leaves behind.
    fn failed(&self, email: &Email, error: &DeliveryError) -> Outcome {
        let unanswered = email.unanswered + i64::from(matches!(error, DeliveryError::Unanswered(_)));
        let again = !matches!(error, DeliveryError::Refused(_)) && unanswered < UNANSWERED_MAX;
        let delay = if again { self.rules.delay_after(email.attempts) } else { None };
        Outcome::Failed(FailedTry {
            attempt: email.attempts,
            error: error.to_string(),
            retry_at: delay.map(|delay| self.clock.now().plus(delay)),
            unanswered,
        })
    }

    /// Tells the database until it has heard it: what a server has answered is not asked again.
    async fn keep<F: Future<Output = Result<(), StoreError>>>(&self, tell: impl FnMut() -> F) {
        let backoff = ExponentialBuilder::new()
            .with_min_delay(MARK_DELAYS.0)
            .with_max_delay(MARK_DELAYS.1)
            .without_max_times()
            .with_total_delay(Some(self.rules.mark_limit))
            .with_jitter();
        if let Err(error) = tell.retry(backoff).sleep(tokio::time::sleep).await {
            tracing::error!(error = &error as &dyn std::error::Error, "what the mail server said could not be kept");
        }
    }

    /// Asks the server now and then whether it is there, until the delivery stops: readiness tells it.
    pub(super) async fn watch(&self) {
        let mut tick = tokio::time::interval(self.courier.options().probe_period);
        let mut probed: Option<Instant> = None;
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return,
                _ = tick.tick() => {}
            }
            if !self.is_up() || probed.is_none_or(|at| at.elapsed() > IDLE_PROBE_PERIOD) {
                tokio::select! {
                    () = self.stopping.cancelled() => return,
                    () = self.courier.probe() => probed = Some(Instant::now()),
                }
            }
        }
    }

    /// Begins nothing more.
    pub(super) fn stop(&self) {
        self.stopping.cancel();
    }

    /// Waits until what is on its way has arrived, until `deadline` at most. Gives how many mails are on their way
    /// then.
    pub(super) async fn finish(&self, deadline: tokio::time::Instant) -> usize {
        let sends_max = self.courier.options().sends_max;
        let all = u32::try_from(sends_max).unwrap_or(u32::MAX);
        let left = match timeout_at(deadline, self.places.acquire_many(all)).await {
            Ok(_) => 0,
            Err(_) => sends_max.saturating_sub(self.places.available_permits()),
        };
        if left > 0 {
            tracing::warn!(left, "mails are on their way when time is over; they are tried again after the next start");
        }
        drop(timeout_at(deadline, self.courier.close()).await);
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_grow_to_their_limit_and_end() {
        let rules = RetryRules::default();
        for (tries, least) in [(1, 5), (2, 10), (5, 80), (10, 2_560), (11, 3_600)] {
            let delay = rules.delay_after(tries).expect("another try");
            let least = Duration::from_secs(least);
            assert!(delay >= least && delay <= least * 2, "{tries}: {delay:?}");
        }
        assert_eq!(rules.delay_after(12), None);
        assert_eq!(rules.delay_after(i64::MAX), None);
        assert_eq!(RetryRules { tries: 1, ..rules }.delay_after(1), None);
        let all: Duration = (1..12).filter_map(|tries| rules.delay_after(tries)).sum();
        assert!(all > Duration::from_secs(2 * 3_600) && all < Duration::from_secs(5 * 3_600), "{all:?}");
    }
}
