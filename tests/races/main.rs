//! The adversary: what must not go wrong when many do things to one shop at the same time, when time runs out, when
//! an actor dies, when messages come twice; and a model that says what every answer has to be.
//!
//! All of it over the real app, most of it over HTTP. Each test ends by stopping its shop, which proves the books.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails where it stands")]

mod consumers;
mod crowd;
mod expiry;
mod idempotency;
mod kept;
mod model;
mod other_node;
mod oversell;
#[cfg(feature = "fault-injection")]
mod panics;
mod races;
#[path = "../support/mod.rs"]
mod support;
mod walk;
