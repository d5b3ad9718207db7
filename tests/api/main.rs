//! The HTTP contract over the real server: each test starts one of its own on a free port with a new database, talks
//! to it as a client does, and stops it again.
//!
//! One module a resource, as in `src/http`. [`bad_input`] goes through every route and field by a table.
#![expect(clippy::expect_used, reason = "a test that can not go on shall fail")]

mod actors;
mod app;
mod auth;
mod bad_input;
#[expect(dead_code, reason = "nothing is put away in these tests")]
#[path = "../support/bus.rs"]
mod bus;
mod cart;
#[path = "../support/database.rs"]
mod database;
mod emails;
mod health;
mod idempotency;
mod inventories;
mod metrics;
mod orders;
#[path = "../support/postgres.rs"]
mod postgres;
mod products;
mod protocol;
#[path = "../support/rabbitmq.rs"]
mod rabbitmq;
mod routes;
#[expect(dead_code, reason = "these tests start no program")]
#[path = "../support/services.rs"]
mod services;
#[expect(dead_code, reason = "here it takes every mail; what else it can do is for the tests of mail")]
#[path = "../support/smtp.rs"]
mod smtp;
#[path = "../support/unprivileged.rs"]
mod unprivileged;
mod users;
