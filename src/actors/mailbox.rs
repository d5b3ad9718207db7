//! The bounded, counted way to one actor.
//!
//! Actix bounds nothing that we could rely on: clones of an address each own a place, and a queue's length can not be
//! read. So a [`Mailbox`] counts for itself, by the actor's [`Gauge`].

use std::sync::Arc;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};

use super::gauge::{Gauge, Ticket};

/// Why a mailbox did not take a message. It was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// So many wait already that one more is too many.
    Full,
    /// The actor has gone; another may be started in its place.
    Closed,
}

/// Why a message did not get to an actor. Nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unposted {
    /// So many wait already that one more is too many, or would be late.
    #[error("too many requests are waiting")]
    Full,
    /// The actor died a moment ago, not for the first time; the next one starts a little later.
    #[error("what this is asked of has failed and starts again in a moment")]
    Restarting,
    /// The actor died so often that it is not started again before an administrator says so.
    #[error("what this is asked of has failed {deaths} times in a row and waits for an administrator to restart it")]
    Quarantined {
        /// How often it died within the time that is looked at.
        deaths: u32,
    },
}

/// A message with its place in the mailbox.
pub struct Posted<M> {
    /// What is to be done.
    pub message: M,
    /// To be kept until it is done.
    pub ticket: Ticket,
}

impl<M> Message for Posted<M> {
    type Result = ();
}

/// The bounded, counted way to one actor. Clones lead to the same one.
pub struct Mailbox<A: Actor> {
    addr: Addr<A>,
    gauge: Arc<Gauge>,
}

impl<A: Actor> Clone for Mailbox<A> {
    fn clone(&self) -> Self {
        Self { addr: self.addr.clone(), gauge: Arc::clone(&self.gauge) }
    }
}

impl<A: Actor> Mailbox<A> {
    pub(super) fn new(addr: Addr<A>, gauge: Arc<Gauge>) -> Self {
        Self { addr, gauge }
    }

    /// Sends a message, unless too many wait.
    ///
    /// # Errors
    /// The message, and why it was not sent.
    pub(super) fn post<M>(&self, message: M) -> Result<(), (M, Refused)>
    where
        M: Send + 'static,
        A: Handler<Posted<M>>,
        A::Context: ToEnvelope<A, Posted<M>>,
    {
        match self.gauge.enter() {
            Ok(ticket) => {
                self.addr.do_send(Posted { message, ticket });
                Ok(())
            }
            Err(refused) => Err((message, refused)),
        }
    }

    /// Sends what must not be refused and is not counted: outcomes of earlier messages, and orders from above.
    pub(super) fn tell<M>(&self, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        self.addr.do_send(message);
    }

    pub(super) fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }

    /// Whether messages still reach a living actor.
    pub(super) fn is_open(&self) -> bool {
        !self.gauge.is_closed() && self.addr.connected()
    }
}
