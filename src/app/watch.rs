//! What is looked at so that `/metrics` can tell it: the services that the server depends on, and what is in hand in the
//! database. Whoever asks for the metrics waits for none of it.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::actors::roster::{KindSummary, Roster};
use crate::domain::timestamp::Timestamp;
use crate::http::{Dependencies, DependencyState};
use crate::observability::metrics::{Gauge, Metrics};
use crate::persistence::census::Census;
use crate::persistence::clock::Clock;
use crate::persistence::{SharedStore, StoreError};

/// How long the database may take to answer one question.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
/// After it has counted the database is left alone for so many times as long as that took, ...
const REST_TIMES: u32 = 100;
/// ... but for no more than so many periods: what has gone wrong once is not unknown for long.
const REST_PERIODS_MAX: u32 = 12;
/// How often histograms are tidied.
const TIDY_PERIOD: Duration = Duration::from_secs(5);
/// The states of a dependency, as labels.
const STATES: [(DependencyState, &str); 3] =
    [(DependencyState::Up, "up"), (DependencyState::Degraded, "degraded"), (DependencyState::Off, "off")];

/// What is looked at.
pub(super) struct Watched {
    pub(super) metrics: Metrics,
    pub(super) store: SharedStore,
    pub(super) clock: Clock,
    pub(super) dependencies: Dependencies,
    pub(super) roster: Roster,
    /// How often the database is asked.
    pub(super) period: Duration,
}

/// Watches until what this gives is dropped. To be called on the runtime.
pub(super) fn watch(watched: Watched) -> DropGuard {
    let end = CancellationToken::new();
    let Watched { metrics, store, clock, dependencies, roster, period } = watched;
    when_rendered(&metrics, &store, dependencies);
    metrics.when_rendered(move |metrics| roster.summary().iter().for_each(|kind| tell_actors(metrics, kind)));
    let tidied = metrics.clone();
    spawn_until(&end, async move {
        loop {
            tokio::time::sleep(TIDY_PERIOD).await;
            tidied.tidy();
        }
    });
    spawn_until(&end, ping_again_and_again(metrics.clone(), Arc::clone(&store), period));
    spawn_until(&end, count_again_and_again(metrics, store, clock, period));
    end.drop_guard()
}

fn spawn_until(end: &CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
    let end = end.clone();
    tokio::spawn(async move { end.run_until_cancelled(work).await });
}

/// What is known in this process is looked at when somebody asks.
fn when_rendered(metrics: &Metrics, store: &SharedStore, dependencies: Dependencies) {
    let connections = |state| {
        let help = "Connections to the database (but for the one that writes stock and orders), by their state.";
        metrics.gauge("storekeeper_database_connections", help, &[("state", state)])
    };
    let (in_use, idle) = (connections("in_use"), connections("idle"));
    let help = "Connections to the database that there may be.";
    let most = metrics.gauge("storekeeper_database_connections_max", help, &[]);
    let store = Arc::clone(store);
    metrics.when_rendered(move |metrics| {
        let connections = store.pool_use();
        in_use.set(connections.in_use);
        idle.set(connections.idle);
        most.set(connections.most);
        for (name, state) in dependencies() {
            tell_dependency(metrics, name, state);
        }
    });
}

/// What is counted of the actors of one kind.
fn tell_actors(metrics: &Metrics, summary: &KindSummary) {
    let kind = [("kind", summary.kind.name())];
    let gauges = [
        ("storekeeper_actors_live", "Actors that are there.", summary.live),
        ("storekeeper_actors_quarantined", "Actors that are out of service: they died too often.", summary.quarantined),
        ("storekeeper_mailbox_depth", "Messages that wait or are at work.", summary.depth),
    ];
    for (name, help, value) in gauges {
        metrics.gauge(name, help, &kind).set(value as f64);
    }
    let counters = [
        ("storekeeper_messages_processed_total", "Messages that were done.", summary.processed),
        ("storekeeper_messages_failed_total", "Messages that ended without having been done.", summary.failed),
        ("storekeeper_mailbox_rejected_total", "Messages that were not let in.", summary.rejected),
        ("storekeeper_actor_restarts_total", "Actors that took the place of a dead one.", summary.restarts),
    ];
    for (name, help, value) in counters {
        metrics.counter(name, help, &kind).absolute(value);
    }
    let faults =
        "Panics of actors and their tasks, errors (what an actor needs was not there), and kills from outside.";
    for (cause, value) in [("panic", summary.panics), ("error", summary.errors), ("kill", summary.kills)] {
        let labels = [kind[0], ("cause", cause)];
        metrics.counter("storekeeper_actor_faults_total", faults, &labels).absolute(value);
    }
}

fn tell_dependency(metrics: &Metrics, dependency: &'static str, is: DependencyState) {
    for (state, label) in STATES {
        let labels = [("dependency", dependency), ("state", label)];
        let help =
            "1 for the state that a dependency is in: up, degraded (it does not answer) or off (not configured).";
        metrics.gauge("storekeeper_dependency_state", help, &labels).set(if state == is { 1.0 } else { 0.0 });
    }
}

/// Asks the database now and then whether it is there.
async fn ping_again_and_again(metrics: Metrics, store: SharedStore, period: Duration) {
    loop {
        let state = match in_time(store.ping()).await {
            Some(()) => DependencyState::Up,
            None => DependencyState::Degraded,
        };
        tell_dependency(&metrics, "database", state);
        tokio::time::sleep(period).await;
    }
}

/// Has the database count what is in hand, one thing after the other, and then leaves it alone.
async fn count_again_and_again(metrics: Metrics, store: SharedStore, clock: Clock, period: Duration) {
    let in_hand = OnceLock::new();
    loop {
        let began = Instant::now();
        if let Some(counted) = count(&store, &clock).await {
            in_hand.get_or_init(|| InHand::new(&metrics)).tell(&counted);
        }
        tokio::time::sleep(rest(began.elapsed(), period)).await;
    }
}

/// How long the database is left alone after it has counted for so long.
fn rest(took: Duration, period: Duration) -> Duration {
    (took * REST_TIMES).clamp(period, period * REST_PERIODS_MAX)
}

/// What the database answers, unless it does not, or not in time.
async fn in_time<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
    match tokio::time::timeout(ANSWER_TIME_MAX, answer).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "the metrics go without the database");
            None
        }
        Err(_) => {
            tracing::debug!("the metrics go without the database: it did not answer in time");
            None
        }
    }
}

/// What is in hand in the database.
struct Counted {
    waiting_events: i64,
    oldest_event_age: Duration,
    census: Census,
    at: Timestamp,
}

async fn count(store: &SharedStore, clock: &Clock) -> Option<Counted> {
    let (waiting_events, oldest) = in_time(store.outbox_lag()).await?;
    let census = in_time(store.census()).await?;
    let at = clock.now();
    let oldest_event_age = oldest.map_or(Duration::ZERO, |oldest| at.since(oldest));
    Some(Counted { waiting_events, oldest_event_age, census, at })
}

/// The gauges of what is in hand. They are there from when it is first known.
struct InHand {
    waiting_events: Gauge,
    oldest_event_age: Gauge,
    open_carts: Gauge,
    open_holds: Gauge,
    held_units: Gauge,
    queued_mails: Gauge,
    counted_at: Gauge,
}

impl InHand {
    fn new(metrics: &Metrics) -> Self {
        let gauge = |name, help| metrics.gauge(name, help, &[]);
        Self {
            waiting_events: gauge("storekeeper_outbox_waiting_events", "Events in the outbox that are not published."),
            oldest_event_age: gauge(
                "storekeeper_outbox_oldest_event_age_seconds",
                "For how long the oldest event in the outbox has waited; 0 when none does.",
            ),
            open_carts: gauge("storekeeper_carts_open", "Carts that are open."),
            open_holds: gauge("storekeeper_holds_open", "Lines of open carts, each of which holds stock."),
            held_units: gauge("storekeeper_units_held", "Units that open carts hold."),
            queued_mails: gauge("storekeeper_mails_queued", "Mails that wait to be sent."),
            counted_at: gauge(
                "storekeeper_database_counted_timestamp_seconds",
                "When outbox, carts, holds and mails were last counted, seconds since 1970.",
            ),
        }
    }

    fn tell(&self, counted: &Counted) {
        self.waiting_events.set(counted.waiting_events as f64);
        self.oldest_event_age.set(counted.oldest_event_age.as_secs_f64());
        self.open_carts.set(counted.census.open_carts as f64);
        self.open_holds.set(counted.census.open_holds as f64);
        self.held_units.set(counted.census.held_units as f64);
        self.queued_mails.set(counted.census.queued_mails as f64);
        self.counted_at.set(Duration::from_micros(u64::try_from(counted.at.0).unwrap_or(0)).as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_counting_took_the_longer_is_the_rest_within_bounds() {
        let rests =
            [0, 40, 60, 300, 4_000].map(|took| rest(Duration::from_millis(took), Duration::from_secs(5)).as_secs());
        assert_eq!(rests, [5, 5, 6, 30, 60]);
    }

    #[test]
    fn what_is_in_hand_is_told_by_its_names() {
        let metrics = Metrics::new().unwrap_or_else(|error| panic!("{error}"));
        let census = Census { open_carts: 1, open_holds: 2, held_units: 3, queued_mails: 4 };
        let oldest_event_age = Duration::from_millis(2_500);
        let at = Timestamp(1_790_000_000_250_000);
        InHand::new(&metrics).tell(&Counted { waiting_events: 5, oldest_event_age, census, at });
        let text = metrics.render();
        for line in [
            "storekeeper_carts_open 1",
            "storekeeper_holds_open 2",
            "storekeeper_units_held 3",
            "storekeeper_mails_queued 4",
            "storekeeper_outbox_waiting_events 5",
            "storekeeper_outbox_oldest_event_age_seconds 2.5",
            "storekeeper_database_counted_timestamp_seconds 1790000000.25",
        ] {
            assert!(text.lines().any(|told| told == line), "{line}: {text}");
        }
    }

    #[test]
    fn a_dependency_is_in_one_state() {
        let metrics = Metrics::new().unwrap_or_else(|error| panic!("{error}"));
        for state in [DependencyState::Up, DependencyState::Degraded] {
            tell_dependency(&metrics, "redis", state);
        }
        let text = metrics.render();
        for (state, told) in [("up", 0), ("degraded", 1), ("off", 0)] {
            let line = format!("storekeeper_dependency_state{{dependency=\"redis\",state=\"{state}\"}} {told}\n");
            assert!(text.contains(&line), "{line}: {text}");
        }
    }
}
