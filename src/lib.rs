//! Storekeeper: a headless commerce server that never sells a unit twice.
pub mod actors;
pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod domain;
pub mod http;
pub mod messaging;
pub mod persistence;
pub mod telemetry;
