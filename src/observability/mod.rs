//! What a server tells programs that watch it: its numbers. It knows nothing of the shop, so that every layer above the
//! domain may count and measure by it.

pub mod metrics;
mod process;
