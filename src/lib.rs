//! Storekeeper: a headless commerce server that never sells a unit twice.
pub mod actors;
pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
pub mod http;
pub mod messaging;
pub mod observability;
pub mod persistence;
pub mod telemetry;

/// Of many small things made on one thread and dropped on another (messages, answers, rows) it takes half the time
/// that the system's own allocator takes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
