//! The mirror of carts in Redis: what other programs may read of a cart. The database decides; nothing is ever read
//! from here but whether it says the same.
//!
//! `cart:<sessionId>` is a hash of what is in the cart, `session:<sessionId>` a text, the cart's version; both live as
//! long as the cart. Two more keys of ours remember which version each shows, and do so for a while after the cart has
//! ended, so that a late write of an older version brings nothing back. The two keys of a pair are of one slot of a
//! cluster; the two pairs need not be.

mod connection;
mod image;
mod marker;
mod options;

pub use connection::{KeyOutcome, MirrorConnection, Shown};
pub use image::CartImage;
pub use options::RedisOptions;

/// Why the mirror did not do what it was asked. No variant shows the address, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The server can not be reached, or did not answer in time, or refused.
    #[error("redis: {0}")]
    Server(#[from] ::redis::RedisError),
    /// The server took the connection and said nothing.
    #[error("redis does not answer")]
    NoAnswer,
    /// What it answered can not be understood.
    #[error("redis answered {0:?}")]
    Answer(String),
}
