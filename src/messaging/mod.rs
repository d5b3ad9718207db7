//! What goes out of the shop and comes in: the messages' forms and the mails' texts.
//!
//! The queues' names are part of the contract with other programs; so are the forms in [`documents`] and [`stock_changed`]. Whoever
//! carries them (the bus inside this program, or a broker) neither reads nor changes them.

pub mod amqp;
pub mod bus;
pub mod documents;
pub mod letter;
pub mod mail;
pub mod order_events;
pub mod smtp;
pub mod stock_changed;

/// The placed order, for the confirmation by mail.
pub const SEND_EMAIL: &str = "send-email";
/// A used cart session, of which nothing needs to be kept.
pub const CLEAR_CART: &str = "clear-cart";
/// Every change of an order's status.
pub const ORDER_STATUS: &str = "order-status";
/// The newest balance of an inventory.
pub const STOCK_CHANGED: &str = "stock-changed";
/// A change of stock asked for by a warehouse system.
pub const UPDATE_INVENTORY: &str = "update-inventory";
