//! The mirror of carts in Redis, on a real `redis-server` and seen through a real `redis-cli`: what it shows and for
//! how long, what happens when Redis is away, frozen, emptied or tampered with, several servers, and a cluster.

#![expect(clippy::expect_used, reason = "a test fails where it stands")]

mod cluster;
#[path = "../support/database.rs"]
mod database;
mod differences;
mod keys;
mod nodes;
mod outages;
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/redis.rs"]
mod redis;
mod shop;
#[path = "../support/stock.rs"]
mod stock;
#[path = "../support/unprivileged.rs"]
mod unprivileged;
