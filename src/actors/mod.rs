//! The actors: thin shells round the domain. An actor loads, asks the domain, has the journal make it durable, then
//! updates its memory and answers.

pub mod command;
pub mod inventory;
pub mod journal;
pub mod mailbox;
pub mod registry;
pub mod shop;
