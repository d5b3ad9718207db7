//! Faults from the inside: actors that panic before, during and after their commit, a journal that dies in the middle of
//! a batch, actors that hang. Whatever happens, nothing acknowledged is lost, the books are in order, everything that
//! was counted is counted once, and the neighbours are served.
//!
//! The faults are armed at named points of the actors' work, which exist in builds for tests only.

#![expect(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test fails where it stands, and tells")]
#![cfg(feature = "fault-injection")]

mod hang;
mod hot;
mod journal;
mod mails;
mod panics;
mod quarantine;
mod scene;
#[expect(dead_code, unused_imports, reason = "other tests need the rest")]
#[path = "../support/mod.rs"]
mod support;
