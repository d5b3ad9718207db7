//! The view of every mailbox: which actors there are on this server, how they do, and the order to restart one.
//!
//! It reads counters and never asks an actor, so it answers also when one hangs. A page of the list costs one pass over
//! the actors, and memory for that page only.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use uuid::Uuid;

use super::gauge::{GaugeView, KindCounters};
use super::supervision::{ActorKind, Identity};

/// How an actor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActorState {
    /// It takes messages.
    Running,
    /// It has died; the next message starts another one.
    Down,
    /// It has died again, and another one starts in a moment. Messages are refused until then.
    Restarting,
    /// It has died too often. Messages are refused until an administrator restarts it.
    Quarantined,
}

impl ActorState {
    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Down => "down",
            Self::Restarting => "restarting",
            Self::Quarantined => "quarantined",
        }
    }
}

/// One actor.
#[derive(Debug, Clone)]
pub struct ActorView {
    /// Which.
    pub identity: Identity,
    /// How it does.
    pub state: ActorState,
    /// What is counted of it.
    pub gauge: GaugeView,
}

/// All actors of one kind, since the server started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindSummary {
    /// Which kind.
    pub kind: ActorKind,
    /// Actors that are there.
    pub live: i64,
    /// Messages that wait or are at work.
    pub depth: i64,
    /// Messages that were done.
    pub processed: u64,
    /// Messages that ended without having been done.
    pub failed: u64,
    /// Messages that were not let in.
    pub rejected: u64,
    /// Actors that took the place of a dead one.
    pub restarts: u64,
    /// Panics, in an actor or in a task that it had begun.
    pub panics: u64,
    /// Times that an actor could not do its work for want of something else.
    pub errors: u64,
    /// Actors that were ended from outside.
    pub kills: u64,
    /// Actors that are in quarantine now.
    pub quarantined: i64,
}

impl KindSummary {
    pub(super) fn of(kind: ActorKind, counters: &KindCounters) -> Self {
        Self {
            kind,
            live: counters.live(),
            depth: counters.depth(),
            processed: counters.processed(),
            failed: counters.failed(),
            rejected: counters.rejected(),
            restarts: counters.restarts(),
            panics: counters.panics(),
            errors: counters.errors(),
            kills: counters.kills(),
            quarantined: counters.quarantined(),
        }
    }
}

/// What a list of actors is sorted by; those that are alike by kind and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActorSort {
    /// Those first before whom most messages wait.
    Depth,
    /// Those first that have done most.
    Processed,
    /// By the name of their kind.
    Kind,
}

/// An actor's place in a sorted list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// What the list is sorted by, the largest first; 0 when that is the kind.
    pub value: Reverse<u64>,
    /// The kind.
    pub kind: ActorKind,
    /// The row.
    pub row: Option<Uuid>,
}

/// An actor that may be on the page.
pub(super) struct Candidate {
    pub(super) kind: ActorKind,
    pub(super) row: Option<Uuid>,
    pub(super) depth: u32,
    pub(super) processed: u64,
}

/// Cuts a page out of all actors that are offered, in whatever order: the first ones behind `after`.
pub(super) struct Cut {
    sort: ActorSort,
    after: Option<Rank>,
    size: usize,
    /// The last one of the page on top.
    page: BinaryHeap<Rank>,
}

impl Cut {
    fn new(sort: ActorSort, after: Option<Rank>, size: usize) -> Self {
        Self { sort, after, size, page: BinaryHeap::with_capacity(size + 1) }
    }

    pub(super) fn offer(&mut self, actor: Candidate) {
        let value = match self.sort {
            ActorSort::Depth => u64::from(actor.depth),
            ActorSort::Processed => actor.processed,
            ActorSort::Kind => 0,
        };
        let rank = Rank { value: Reverse(value), kind: actor.kind, row: actor.row };
        if self.after.is_some_and(|after| rank <= after) {
            return;
        }
        if self.page.len() < self.size {
            self.page.push(rank);
        } else if self.page.peek().is_some_and(|last| rank < *last) {
            self.page.pop();
            self.page.push(rank);
        }
    }
}

/// All actors of one kind, to look at.
pub(super) trait Kind: Send + Sync {
    /// Which kind.
    fn kind(&self) -> ActorKind;
    /// What is counted of the kind.
    fn summary(&self) -> KindSummary;
    /// Offers all actors of the kind.
    fn cut(&self, cut: &mut Cut);
    /// One of them.
    fn view(&self, row: Option<Uuid>) -> Option<ActorView>;
    /// Ends one of them, and lets it start again, also when it is quarantined. Gives how it does then.
    fn restart(&self, row: Option<Uuid>) -> Option<ActorState>;
}

/// A page of the list of actors.
#[derive(Debug)]
pub struct RosterPage {
    /// The actors.
    pub actors: Vec<ActorView>,
    /// The place of the last one, when there are more.
    pub more_behind: Option<Rank>,
}

/// All actors of this server. Clones show the same ones.
#[derive(Clone)]
pub struct Roster {
    kinds: Arc<[Arc<dyn Kind>]>,
}

impl Roster {
    pub(super) fn new(kinds: Vec<Arc<dyn Kind>>) -> Self {
        Self { kinds: kinds.into() }
    }

    /// What is counted of each kind, in the order of their names.
    #[must_use]
    pub fn summary(&self) -> Vec<KindSummary> {
        let mut summary: Vec<KindSummary> = self.kinds.iter().map(|kind| kind.summary()).collect();
        summary.sort_unstable_by_key(|of_kind| of_kind.kind);
        summary
    }

    /// A page of the actors, of one kind or all: at most `size` behind `after`. What is counted moves on between two
    /// pages.
    #[must_use]
    pub fn page(&self, kind: Option<ActorKind>, sort: ActorSort, after: Option<Rank>, size: usize) -> RosterPage {
        let mut cut = Cut::new(sort, after, size + 1);
        for of_kind in self.kinds.iter().filter(|it| kind.is_none_or(|kind| it.kind() == kind)) {
            of_kind.cut(&mut cut);
        }
        let mut ranks = cut.page.into_sorted_vec();
        let has_more = ranks.len() > size;
        ranks.truncate(size);
        let more_behind = if has_more { ranks.last().copied() } else { None };
        // One that has gone meanwhile is left out. The others stand where they stood when the page was cut.
        let actors = ranks.iter().filter_map(|rank| self.ranked(*rank, sort)).collect();
        RosterPage { actors, more_behind }
    }

    fn ranked(&self, rank: Rank, sort: ActorSort) -> Option<ActorView> {
        let mut view = self.view(rank.kind, rank.row)?;
        match sort {
            ActorSort::Depth => view.gauge.depth = u32::try_from(rank.value.0).unwrap_or(u32::MAX),
            ActorSort::Processed => view.gauge.processed = rank.value.0,
            ActorSort::Kind => {}
        }
        Some(view)
    }

    /// One actor.
    #[must_use]
    pub fn view(&self, kind: ActorKind, row: Option<Uuid>) -> Option<ActorView> {
        self.of(kind)?.view(row)
    }

    /// Ends an actor at once. It comes back from the database with its next message; one that was quarantined too.
    /// What it had accepted and not handed on is not done, and whoever waits for it is told that nobody knows. `None`
    /// when there is no such actor.
    #[must_use]
    pub fn restart(&self, kind: ActorKind, row: Option<Uuid>) -> Option<ActorState> {
        let state = self.of(kind)?.restart(row)?;
        tracing::warn!(kind = kind.name(), id = %Identity { kind, key: row }, "an administrator restarts an actor");
        Some(state)
    }

    fn of(&self, kind: ActorKind) -> Option<&Arc<dyn Kind>> {
        self.kinds.iter().find(|of_kind| of_kind.kind() == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(count: u32) -> Vec<Candidate> {
        let candidate = |number: u32| Candidate {
            kind: if number.is_multiple_of(3) { ActorKind::Cart } else { ActorKind::Inventory },
            row: Some(Uuid::from_u128(u128::from(number.wrapping_mul(2_654_435_761)))),
            depth: number * 7 % 13,
            processed: u64::from(number * 11 % 17),
        };
        (0..count).map(candidate).collect()
    }

    /// All actors, page by page.
    fn walk(sort: ActorSort, size: usize) -> Vec<Rank> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let mut cut = Cut::new(sort, after, size);
            candidates(1_000).into_iter().for_each(|candidate| cut.offer(candidate));
            let page = cut.page.into_sorted_vec();
            assert!(page.len() <= size);
            let Some(last) = page.last() else { return all };
            after = Some(*last);
            all.extend(page);
        }
    }

    #[test]
    fn pages_of_any_size_make_the_whole_sorted_list() {
        for sort in [ActorSort::Depth, ActorSort::Processed, ActorSort::Kind] {
            let whole = walk(sort, 1_000);
            assert_eq!(whole.len(), 1_000);
            assert!(whole.is_sorted());
            for size in [1, 7, 100] {
                assert_eq!(walk(sort, size), whole, "{sort:?} in pages of {size}");
            }
        }
        assert_eq!(walk(ActorSort::Depth, 1_000)[0].value, Reverse(12));
        assert_eq!(walk(ActorSort::Kind, 1_000)[0].kind, ActorKind::Cart);
    }
}
