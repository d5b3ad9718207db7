//! How long an actor's messages take, in 64 bytes an actor.
//!
//! A hundred thousand actors are listed with their percentiles, so each keeps counts by bucket and nothing else: 30
//! counts of 16 bits and the longest time. When a count is full all are halved, so that what is told leans to what
//! happened lately. Written by whoever ends a message, read by whoever lists; a count may be off by a few where both
//! are at it, which percentiles do not show.

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

/// The upper ends of all buckets but the last, in microseconds: 1, 2, 3 and 5 of each power of ten.
const BOUNDS_US: [u32; 29] = [
    1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1_000, 2_000, 3_000, 5_000, 10_000, 20_000, 30_000, 50_000,
    100_000, 200_000, 300_000, 500_000, 1_000_000, 2_000_000, 3_000_000, 5_000_000, 10_000_000,
];

/// Counts by bucket, and the longest time.
#[derive(Debug)]
pub(super) struct Latency {
    counts: [AtomicU16; BOUNDS_US.len() + 1],
    max_us: AtomicU32,
}

/// What is told of an actor's times. A percentile is the upper end of its bucket, and never more than the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LatencyView {
    /// Half of the messages took no longer.
    pub p50: Duration,
    /// 99 of 100 messages took no longer.
    pub p99: Duration,
    /// No message took longer.
    pub max: Duration,
}

impl Latency {
    pub(super) fn new() -> Self {
        Self { counts: [const { AtomicU16::new(0) }; BOUNDS_US.len() + 1], max_us: AtomicU32::new(0) }
    }

    /// Counts one message.
    pub(super) fn record(&self, took: Duration) {
        let took_us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let bucket = BOUNDS_US.partition_point(|bound_us| *bound_us < took_us);
        if self.counts[bucket].fetch_add(1, Ordering::Relaxed) == u16::MAX - 1 {
            for count in &self.counts {
                count.store(count.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
            }
        }
        if self.max_us.load(Ordering::Relaxed) < took_us {
            self.max_us.fetch_max(took_us, Ordering::Relaxed);
        }
    }

    /// What there is to tell; `None` when no message has been counted.
    pub(super) fn view(&self) -> Option<LatencyView> {
        let counts = self.counts.each_ref().map(|count| u64::from(count.load(Ordering::Relaxed)));
        let all: u64 = counts.iter().sum();
        if all == 0 {
            return None;
        }
        let max_us = self.max_us.load(Ordering::Relaxed);
        let percentile = |of_hundred: u64| {
            let rank = (all * of_hundred).div_ceil(100);
            let mut seen = 0;
            let bucket = counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            let bound_us = bucket.and_then(|bucket| BOUNDS_US.get(bucket)).copied().unwrap_or(max_us);
            Duration::from_micros(u64::from(bound_us.min(max_us)))
        };
        Some(LatencyView { p50: percentile(50), p99: percentile(99), max: Duration::from_micros(u64::from(max_us)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_64_bytes() {
        assert_eq!(size_of::<Latency>(), 64);
    }

    #[test]
    fn percentiles_are_the_upper_ends_of_buckets_and_at_most_the_longest() {
        let latency = Latency::new();
        assert_eq!(latency.view(), None);
        (0..98).for_each(|_| latency.record(Duration::from_micros(150)));
        latency.record(Duration::from_millis(4));
        latency.record(Duration::from_millis(7));
        let view = latency.view().expect("100 messages");
        assert_eq!(view.p50, Duration::from_micros(200));
        assert_eq!(view.p99, Duration::from_millis(5));
        assert_eq!(view.max, Duration::from_millis(7));
    }

    #[test]
    fn one_message_is_all_percentiles() {
        let latency = Latency::new();
        latency.record(Duration::from_secs(20));
        let twenty = Duration::from_secs(20);
        assert_eq!(latency.view(), Some(LatencyView { p50: twenty, p99: twenty, max: twenty }));
    }

    #[test]
    fn a_full_count_halves_all_and_keeps_their_proportion() {
        let latency = Latency::new();
        for _ in 0..100_000 {
            latency.record(Duration::from_micros(1));
            latency.record(Duration::from_millis(1));
        }
        let [small, large] = [0, 12].map(|bucket: usize| latency.counts[bucket].load(Ordering::Relaxed));
        assert!(small.abs_diff(large) <= 1 && small > u16::MAX / 4, "{small} {large}");
        assert_eq!(latency.view().expect("many").p50, Duration::from_micros(1));
    }
}
