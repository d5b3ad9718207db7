//! The actors: thin shells round the domain. An actor loads, asks the domain, has the journal make it durable, then
//! updates its memory and answers.
//!
//! [`mailbox`], [`registry`] and [`supervision`] are the kit, [`periodic`] the actor that has one job again and again,
//! [`roster`] the view of them all; [`journal`] and [`inventory`] the write path; [`cart`] and [`orders`] what
//! a buyer meets; [`relay`], [`announcer`], [`consumers`], [`mailer`] with [`delivery`], and [`sweeper`] what happens by itself;
//! [`mirror`] shows carts to other programs. [`house`] puts them together,
//! [`shop`] is what the layer above asks. Calls go one way: http, coordinator, cart, inventory, journal; never back.

pub mod announcer;
mod batch;
pub mod cart;
pub mod cart_change;
pub mod carts;
pub mod catalogue;
pub mod checkout;
pub mod command;
pub mod consumers;
pub mod delivery;
pub mod faults;
pub mod gauge;
pub mod house;
pub mod inventories;
pub mod inventory;
pub mod journal;
pub mod journal_metrics;
mod latency;
pub mod mailbox;
pub mod mailer;
pub mod mirror;
mod mirror_keeper;
pub mod opened;
pub mod orders;
pub mod periodic;
pub mod registry;
pub mod relay;
pub mod roster;
mod settlement;
pub mod shop;
pub mod shown;
mod stock_change;
pub mod supervision;
pub mod sweeper;
