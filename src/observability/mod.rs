//! What a server tells programs that watch it: its numbers, and where its work stands in traces. It knows nothing of the
//! shop, so that every layer above the domain may use it.

pub mod metrics;
mod process;
pub mod trace;
