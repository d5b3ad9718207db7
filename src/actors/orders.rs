//! The order coordinator: checks carts out and changes orders.
//!
//! Each checkout and each change of an order runs on a task of its own, so that one which dies takes nothing with it. The
//! tasks run on the coordinator's thread.
//! The coordinator keeps the changes of one order apart: the next begins when the last one's outcome is known. The
//! checkouts of one cart are kept apart by the cart.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use tracing::{Instrument, Span};

use crate::domain::ids::OrderId;
use crate::observability::trace::{self, step};
use crate::persistence::records::Order;

use super::cart::Reply;
use super::checkout::{self, CheckoutParts};
use super::command::{AppliedOutcome, CheckedOut, Command, CommandError, OrderTransition};
use super::faults::Moment;
use super::gauge::Ticket;
use super::mailbox::Posted;
use super::registry::{Birth, Registry};
use super::shop::CheckoutRequest;
use super::supervision::{ActorKind, Task};

/// A cart is to become an order.
pub struct Checkout {
    /// What is asked for.
    pub request: CheckoutRequest,
    /// Who asks, and until when.
    pub command: Command<Order>,
    /// What it is part of.
    pub span: Span,
    /// Who is told.
    pub reply: Reply<CheckedOut>,
}

/// An order is to change its status.
pub struct ChangeOrder {
    /// Which, and to what.
    pub transition: OrderTransition,
    /// Who asks, and until when.
    pub command: Command<Order>,
    /// What it is part of.
    pub span: Span,
    /// Who is told.
    pub reply: Reply<Arc<Order>>,
}

/// The way to the coordinator. It is started again when it has died.
#[derive(Clone)]
pub struct OrdersHandle {
    residence: Arc<Registry<(), OrdersActor>>,
    parts: Arc<CheckoutParts>,
}

impl OrdersHandle {
    /// A coordinator that lives on the registry's arbiters.
    #[must_use]
    pub fn new(residence: Arc<Registry<(), OrdersActor>>, parts: CheckoutParts) -> Self {
        Self { residence, parts: Arc::new(parts) }
    }

    /// Where it is listed.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry<(), OrdersActor>> {
        &self.residence
    }

    /// Makes an order of a cart.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn checkout(
        &self,
        request: CheckoutRequest,
        command: Command<Order>,
    ) -> Result<CheckedOut, CommandError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let parts = Arc::clone(&self.parts);
        let posted = self.residence.post((), Checkout { request, command, span: trace::here(), reply }, move |birth| {
            OrdersActor::new(Arc::clone(&parts), birth)
        });
        posted.map_err(|(_, unposted)| unposted)?;
        answer.await.unwrap_or(Err(CommandError::ActorDied { applied: AppliedOutcome::Unknown }))
    }

    /// Changes the status of an order.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn change(
        &self,
        transition: OrderTransition,
        command: Command<Order>,
    ) -> Result<Arc<Order>, CommandError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let parts = Arc::clone(&self.parts);
        let message = ChangeOrder { transition, command, span: trace::here(), reply };
        let posted = self.residence.post((), message, move |birth| OrdersActor::new(Arc::clone(&parts), birth));
        posted.map_err(|(_, unposted)| unposted)?;
        answer.await.unwrap_or(Err(CommandError::ActorDied { applied: AppliedOutcome::Unknown }))
    }
}

/// The actor. An order is in `changing` while a change of it runs, with those that wait for it.
pub struct OrdersActor {
    parts: Arc<CheckoutParts>,
    birth: Birth,
    changing: HashMap<OrderId, VecDeque<Posted<ChangeOrder>>>,
}

impl OrdersActor {
    /// A coordinator with nothing to do.
    #[must_use]
    pub fn new(parts: Arc<CheckoutParts>, birth: Birth) -> Self {
        Self { parts, birth, changing: HashMap::new() }
    }

    fn begin(&self, posted: Posted<ChangeOrder>, context: &mut Context<Self>) {
        let Posted { message: ChangeOrder { transition, command, span, reply }, ticket } = posted;
        let (parts, order) = (Arc::clone(&self.parts), transition.order);
        let change = async move { checkout::change(&parts, &transition, &command).await };
        let change = change.instrument(step!(&span, "change order", order = %order));
        let task = self.spawn(change, ticket, reply);
        context.spawn(task.into_actor(self).map(move |_, actor, context| actor.next(order, context)));
    }

    /// Does something on a task of its own, and tells who waits what came of it.
    fn spawn<T: 'static>(
        &self,
        work: impl Future<Output = Result<T, CommandError>> + 'static,
        mut ticket: Ticket,
        reply: Reply<T>,
    ) -> Task<()> {
        ticket.begin();
        self.birth.spawn_here(async move {
            let answer = work.await;
            ticket.answered(&answer);
            drop(reply.send(answer));
        })
    }

    fn next(&mut self, order: OrderId, context: &mut Context<Self>) {
        match self.changing.get_mut(&order).and_then(VecDeque::pop_front) {
            Some(posted) => self.begin(posted, context),
            None => drop(self.changing.remove(&order)),
        }
    }
}

impl Actor for OrdersActor {
    type Context = Context<Self>;
}

impl Handler<Posted<Checkout>> for OrdersActor {
    type Result = ();

    fn handle(&mut self, posted: Posted<Checkout>, _: &mut Self::Context) {
        let Posted { message: Checkout { request, command, span, reply }, ticket } = posted;
        let parts = Arc::clone(&self.parts);
        parts.faults.at(ActorKind::Orders, Moment::Before, None);
        let checkout = async move { checkout::checkout(&parts, &request, &command).await };
        let checkout = checkout.instrument(step!(&span, "checkout"));
        // Nobody here waits for its end.
        drop(self.spawn(checkout, ticket, reply));
    }
}

impl Handler<Posted<ChangeOrder>> for OrdersActor {
    type Result = ();

    fn handle(&mut self, posted: Posted<ChangeOrder>, context: &mut Self::Context) {
        let order = posted.message.transition.order;
        match self.changing.get_mut(&order) {
            Some(waiting) => waiting.push_back(posted),
            None => {
                self.changing.insert(order, VecDeque::new());
                self.begin(posted, context);
            }
        }
    }
}
