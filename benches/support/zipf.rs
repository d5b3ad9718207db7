//! Zipf's law (exponent 1): what sells best sells `n` times as often as what is at rank `n`. Shops sell about so.

/// The law for so many ranks.
pub(crate) struct Zipf {
    /// How often one of the ranks up to each is asked for, from 0 to 1.
    up_to: Vec<f64>,
}

impl Zipf {
    /// `ranks` is 1 or more.
    pub(crate) fn new(ranks: usize) -> Self {
        let weight = |rank: usize| 1.0 / (rank as f64 + 1.0);
        let all: f64 = (0..ranks).map(weight).sum();
        let up_to = (0..ranks).scan(0.0, |sum, rank| {
            *sum += weight(rank) / all;
            Some(*sum)
        });
        Self { up_to: up_to.collect() }
    }

    /// The rank, from 0, at a place from 0 to 1: places that are spread evenly give ranks by the law.
    pub(crate) fn rank(&self, place: f64) -> usize {
        self.up_to.partition_point(|&up_to| up_to <= place).min(self.up_to.len() - 1)
    }
}
