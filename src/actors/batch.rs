//! What goes into the journal's next transaction: how much, and of what waits whose; and how long what waits will take.
//!
//! Usually everything that waits. When that is more than goes into one batch, the inventories share it evenly, so that a
//! crowd at one product does not make the buyers of another wait behind it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a transaction should take at most. What comes while it runs waits for it.
const TIME_WANTED: Duration = Duration::from_millis(250);
/// A batch is never made smaller than this: the fewer go into it, the less is gained by it.
const LEAST: usize = 64;

/// How many entries go into a transaction: as many as the database does in [`TIME_WANTED`], up to a limit.
///
/// A transaction takes a time of its own (round trips, the disk's sync) and a time for each entry. The first does not
/// become less in smaller batches, so only what is beyond it is held against their size.
pub(super) struct BatchSize {
    most: usize,
    now: usize,
    /// The least that a transaction has taken lately.
    own_time: Duration,
}

impl BatchSize {
    pub(super) fn at_most(most: usize) -> Self {
        Self { most: most.max(1), now: most.max(1), own_time: TIME_WANTED }
    }

    pub(super) fn now(&self) -> usize {
        self.now
    }

    /// A batch of `entries` took so long. After a large one that took too long the next is smaller in proportion; after
    /// one that was as large as it might be and quick, the next may be twice as large.
    pub(super) fn learn(&mut self, entries: usize, took: Duration) {
        // It may become slower for good: what was the least is forgotten by a tenth at a time.
        self.own_time = took.min(self.own_time + self.own_time / 10).min(TIME_WANTED * 4);
        let beyond = took.saturating_sub(self.own_time);
        if beyond > TIME_WANTED && entries > LEAST && entries >= self.now / 2 {
            let fits = entries as u128 * TIME_WANTED.as_micros() / beyond.as_micros().max(1);
            self.now = usize::try_from(fits).unwrap_or(self.most).max(LEAST).min(self.most);
        } else if entries >= self.now && beyond <= TIME_WANTED / 2 {
            self.now = self.now.saturating_mul(2).min(self.most);
        }
    }
}

/// How long an entry takes where many are written together, by what the last transactions took.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Nanoseconds an entry; 0 when nothing is known.
    entry_ns: AtomicU64,
}

impl Pace {
    /// A batch of `entries` took so long. A small one takes longer an entry than a large one would, so it counts only
    /// where it says that things have become better.
    pub(super) fn learn(&self, entries: usize, took: Duration) {
        let now_ns = u64::try_from(took.as_nanos() / (entries.max(1) as u128)).unwrap_or(u64::MAX);
        let known_ns = self.entry_ns.load(Ordering::Relaxed);
        if entries >= LEAST {
            let mean_ns = if known_ns == 0 { now_ns } else { known_ns.midpoint(now_ns) };
            self.entry_ns.store(mean_ns, Ordering::Relaxed);
        } else if now_ns < known_ns {
            self.entry_ns.store(now_ns, Ordering::Relaxed);
        }
    }

    /// How long so many entries take; nothing as long as nothing is known.
    pub(super) fn of(&self, entries: i64) -> Duration {
        let entries = u64::try_from(entries).unwrap_or(0);
        Duration::from_nanos(self.entry_ns.load(Ordering::Relaxed).saturating_mul(entries))
    }
}

/// Takes a batch of at most `size` out of the queue. Each lane keeps its order, and none gets more than an even share
/// as long as another has something left.
pub(super) fn take_batch<T, L: Hash + Eq>(queue: &mut Vec<T>, size: usize, lane: impl Fn(&T) -> L) -> Vec<T> {
    if queue.len() <= size {
        return std::mem::take(queue);
    }
    let mut waiting: HashMap<L, usize> = HashMap::new();
    for entry in queue.iter() {
        *waiting.entry(lane(entry)).or_default() += 1;
    }
    let (share, mut spare) = even_share(waiting.values().copied().collect(), size);
    let mut taken: HashMap<L, usize> = HashMap::new();
    let mut batch = Vec::with_capacity(size);
    let mut rest = Vec::with_capacity(queue.len() - size);
    for entry in queue.drain(..) {
        let of_lane = taken.entry(lane(&entry)).or_default();
        // What the even share leaves over goes to who is first in the queue.
        let is_in = *of_lane < share || (*of_lane == share && spare > 0);
        if is_in {
            spare -= usize::from(*of_lane == share);
            *of_lane += 1;
            batch.push(entry);
        } else {
            rest.push(entry);
        }
    }
    *queue = rest;
    batch
}

/// The largest number of entries that every lane may send so that no more than `size` are sent in all, and how many
/// places that leaves over.
fn even_share(mut waiting: Vec<usize>, size: usize) -> (usize, usize) {
    waiting.sort_unstable();
    let (mut left, mut lanes, mut share) = (size, waiting.len(), 0);
    for count in waiting {
        let more = count - share;
        if more * lanes > left {
            break;
        }
        left -= more * lanes;
        share = count;
        lanes -= 1;
    }
    let lanes = lanes.max(1);
    (share + left / lanes, left % lanes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lanes by letter, in the order they came.
    fn take(queue: &str, size: usize) -> (String, String) {
        let mut queue: Vec<(usize, char)> = queue.chars().enumerate().collect();
        let batch = take_batch(&mut queue, size, |(_, lane)| *lane);
        let text = |entries: Vec<(usize, char)>| entries.into_iter().map(|(_, lane)| lane).collect();
        (text(batch), text(queue))
    }

    #[test]
    fn what_fits_goes_as_it_came() {
        assert_eq!(take("hhch", 4), ("hhch".to_owned(), String::new()));
    }

    #[test]
    fn a_crowd_does_not_hold_up_the_others() {
        assert_eq!(take("hhhhhhhhcd", 4), ("hhcd".to_owned(), "hhhhhh".to_owned()));
        assert_eq!(take("aabbccdd", 3), ("abc".to_owned(), "abcdd".to_owned()));
        assert_eq!(take("hhhhhhhh", 3), ("hhh".to_owned(), "hhhhh".to_owned()));
    }

    proptest! {
        #[test]
        fn a_batch_is_full_in_order_and_fair(queue in prop::collection::vec(0_u8..6, 1..60), size in 1_usize..60) {
            let mut rest: Vec<(usize, u8)> = queue.iter().copied().enumerate().collect();
            let batch = take_batch(&mut rest, size, |(_, lane)| *lane);
            prop_assert_eq!(batch.len(), size.min(queue.len()));
            prop_assert_eq!(batch.len() + rest.len(), queue.len());
            let of = |entries: &[(usize, u8)], wanted: u8| -> Vec<usize> {
                entries.iter().filter(|(_, lane)| *lane == wanted).map(|(number, _)| *number).collect()
            };
            let counts: Vec<(usize, usize)> = (0..6).map(|lane| {
                let (taken, left) = (of(&batch, lane), of(&rest, lane));
                let whole: Vec<usize> = taken.iter().chain(&left).copied().collect();
                assert!(whole.is_sorted(), "lane {lane} keeps its order");
                (taken.len(), left.len())
            }).collect();
            let most = counts.iter().map(|(taken, _)| *taken).max().unwrap_or(0);
            for (taken, left) in counts {
                prop_assert!(left == 0 || taken + 1 >= most, "none is passed over for one that has had more");
            }
        }
    }

    #[test]
    fn the_pace_is_that_of_many_together() {
        let pace = Pace::default();
        assert_eq!(pace.of(1_000_000), Duration::ZERO, "nothing is known");
        pace.learn(1, Duration::from_millis(5));
        assert_eq!(pace.of(1_000_000), Duration::ZERO, "one by itself says nothing");
        pace.learn(1_000, Duration::from_millis(1_000));
        assert_eq!(pace.of(100), Duration::from_millis(100));
        pace.learn(1_000, Duration::from_millis(3_000));
        assert_eq!(pace.of(100), Duration::from_millis(200));
        pace.learn(LEAST - 1, Duration::from_secs(15));
        assert_eq!(pace.of(100), Duration::from_millis(200), "a small one may be slow");
        pace.learn(2, Duration::from_millis(2));
        assert_eq!(pace.of(100), Duration::from_millis(100), "but not quicker than the large ones will be");
    }

    #[test]
    fn batches_shrink_to_what_is_done_in_time_and_grow_again() {
        let mut size = BatchSize::at_most(1_024);
        size.learn(1, Duration::from_millis(2));
        size.learn(1_024, Duration::from_secs(2));
        assert!((120..=136).contains(&size.now()), "{}", size.now());
        let now = size.now();
        size.learn(now, Duration::from_millis(250));
        assert_eq!(size.now(), now, "as long as wanted");
        size.learn(7, Duration::from_millis(1));
        size.learn(7, Duration::from_secs(3));
        assert_eq!(size.now(), now, "a small one says nothing of a large one");
        size.learn(now, Duration::from_millis(100));
        assert_eq!(size.now(), 2 * now);
        size.learn(2 * now, Duration::from_secs(3_600));
        assert_eq!(size.now(), LEAST);
        (0..20).for_each(|_| size.learn(size.now(), Duration::ZERO));
        assert_eq!(size.now(), 1_024);
    }

    #[test]
    fn a_database_that_is_far_away_does_not_make_batches_small() {
        // Whatever is in it, a transaction takes half a second, and a tenth of a millisecond for each entry.
        let took = |entries: usize| {
            Duration::from_millis(500) + Duration::from_micros(100) * u32::try_from(entries).expect("few")
        };
        let mut size = BatchSize::at_most(1_024);
        for _ in 0..100 {
            let entries = size.now();
            size.learn(entries, took(entries));
            size.learn(1, took(1));
        }
        assert_eq!(size.now(), 1_024);
    }
}
