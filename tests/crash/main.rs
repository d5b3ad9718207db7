//! The server as a process of its own: killed at any moment, traced at its system calls, told to stop, started twice,
//! backed up.
//!
//! What a client was told is compared with what is in the database, by the clients' own memory of it.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails where it stands, and says where"
)]

mod audit;
mod backup;
#[expect(dead_code, reason = "nothing is put away in these tests")]
#[path = "../support/bus.rs"]
mod bus;
mod client;
#[path = "../support/database.rs"]
mod database;
mod durability;
mod guest;
mod hurry;
mod kill;
mod load;
mod place;
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/rabbitmq.rs"]
mod rabbitmq;
mod rolling;
mod server;
#[expect(dead_code, reason = "these tests configure programs, not apps")]
#[path = "../support/services.rs"]
mod services;
#[expect(dead_code, reason = "here it takes every mail; what else it can do is for the tests of mail")]
#[path = "../support/smtp.rs"]
mod smtp;
mod stop;
#[cfg(feature = "fault-injection")]
mod stuck;
#[path = "../support/unprivileged.rs"]
mod unprivileged;
mod warehouse;
mod wire;
