//! Events over RabbitMQ, on a real server and seen through its management API and another client: what they look like,
//! in which order they come, what becomes of bad messages, and what an outage of the broker or of the database costs.

#![expect(clippy::expect_used, reason = "a test fails where it stands")]

#[path = "../support/database.rs"]
mod database;
mod database_away;
mod events;
mod outages;
mod poison;
#[path = "../support/postgres.rs"]
mod postgres;
mod proxy;
mod queue;
#[path = "../support/rabbitmq.rs"]
mod rabbitmq;
mod shop;
#[path = "../support/stock.rs"]
mod stock;
mod two_relays;
#[path = "../support/unprivileged.rs"]
mod unprivileged;
