//! Mail by a mail server: one of the test's own that refuses, stalls, cuts and answers as it is told, and the real app.
//!
//! Whatever the server does, a mail that it answered for is not sent twice, and one that it would take arrives.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails where it stands")]

mod nodes;
mod outage;
mod post;
mod refusals;
mod silence;
mod stop;
#[expect(dead_code, unused_imports, reason = "other tests need the rest")]
#[path = "../support/mod.rs"]
mod support;
mod texts;
