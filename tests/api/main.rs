//! The HTTP contract over the real server: each test starts one of its own on a free port with a new database, talks
//! to it as a client does, and stops it again.
//!
//! One module a resource, as in `src/http`. [`bad_input`] goes through every route and field by a table.
#![expect(clippy::expect_used, reason = "a test that can not go on shall fail")]

mod app;
mod auth;
mod bad_input;
mod cart;
#[path = "../support/database.rs"]
mod database;
mod emails;
mod health;
mod idempotency;
mod inventories;
mod orders;
#[path = "../support/postgres.rs"]
mod postgres;
mod products;
mod protocol;
mod routes;
mod users;
