//! What only a database that several servers share can show, on a real PostgreSQL: the hard moments of the journal's
//! transaction, connections that are cut or frozen at the worst point, servers beside each other, and a server of the
//! database that goes away under load.

#![expect(clippy::expect_used, reason = "a test fails where it stands")]

mod census;
mod changes;
mod contention;
mod cut;
mod dump;
mod expected;
mod forget;
mod moments;
mod node;
mod nodes;
mod outage;
mod outbox;
mod plans;
mod proxy;
#[path = "../support/postgres.rs"]
mod server;
mod start;
#[path = "../support/stock.rs"]
mod stock;
#[path = "../support/unprivileged.rs"]
mod unprivileged;
