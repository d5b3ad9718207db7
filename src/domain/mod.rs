//! The rules of a shop, and nothing else: no I/O, no clock, no actor, no SQL.
//!
//! Time, identifiers and randomness come in as arguments, so every rule here can be tested by calling it.
//! Everything above (`persistence`, `messaging`, `actors`, `http`) may use this module; it uses none of them.

pub mod cart;
pub mod ids;
pub mod money;
mod names;
pub mod order;
pub mod product;
pub mod stock;
pub mod timestamp;
pub mod user;

pub(crate) use names::names;
