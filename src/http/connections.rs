//! The connections of clients, as a server that stops has to know them.
//!
//! A client that has an answer knows where it stands, and so does one that was told by it that the connection ends.
//! Not so one whose connection ends before it was answered anything. So while the server stops, every answer is its
//! connection's last (`Connection: close`), and who has come in and not asked yet is waited for.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use actix_web::dev::{Extensions, ServiceRequest, ServiceResponse};
use actix_web::http::ConnectionType;

/// All connections of a server, and whether it stops. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    unasked: AtomicUsize,
    stopping: AtomicBool,
}

impl Connections {
    /// From now on the server is not ready, and every answer is its connection's last.
    pub fn begin_to_stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    /// Whether the server stops.
    #[must_use]
    pub fn are_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    /// A client has come in: to be called for each connection, with what goes along with it.
    pub fn enter(&self, extensions: &mut Extensions) {
        self.0.open.fetch_add(1, Ordering::AcqRel);
        self.0.unasked.fetch_add(1, Ordering::AcqRel);
        extensions.insert(Visit { counts: Arc::clone(&self.0), has_asked: Cell::new(false) });
    }

    /// While the server stops, the answer is its connection's last.
    pub(super) fn see_off<B>(&self, mut answer: ServiceResponse<B>) -> ServiceResponse<B> {
        if self.are_stopping() {
            answer.response_mut().head_mut().set_connection_type(ConnectionType::Close);
        }
        answer
    }

    /// How many there are.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.open.load(Ordering::Acquire)
    }

    /// How many there are over which nothing was asked yet.
    #[must_use]
    pub fn unasked(&self) -> usize {
        self.0.unasked.load(Ordering::Acquire)
    }
}

/// One connection, for as long as it is there.
#[derive(Debug)]
struct Visit {
    counts: Arc<Counts>,
    has_asked: Cell<bool>,
}

impl Visit {
    fn has_asked(&self) {
        if !self.has_asked.replace(true) {
            self.counts.unasked.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.has_asked();
        self.counts.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A request has come in.
pub(super) fn asked(request: &ServiceRequest) {
    if let Some(visit) = request.conn_data::<Visit>() {
        visit.has_asked();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_until_it_is_gone_and_as_new_until_it_asks() {
        let connections = Connections::default();
        let counted = || (connections.open(), connections.unasked());
        let (mut first, mut second) = (Extensions::new(), Extensions::new());
        connections.enter(&mut first);
        connections.enter(&mut second);
        assert_eq!(counted(), (2, 2));
        let visit = first.get::<Visit>().expect("it was let in");
        visit.has_asked();
        visit.has_asked();
        assert_eq!(counted(), (2, 1));
        drop(second);
        assert_eq!(counted(), (1, 0), "it left without a word");
        drop(first);
        assert_eq!(counted(), (0, 0));
    }
}
