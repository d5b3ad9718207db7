//! The server as a process of its own: killed at any moment, traced at its system calls, told to stop, started twice.
//!
//! What a client was told is compared with what is in the database, by the clients' own memory of it.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails where it stands, and says where"
)]

mod audit;
mod client;
#[path = "../support/database.rs"]
mod database;
mod durability;
mod guest;
mod kill;
mod load;
mod place;
#[path = "../support/postgres.rs"]
mod postgres;
mod server;
mod stop;
mod warehouse;
