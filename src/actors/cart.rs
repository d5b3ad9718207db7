//! The cart of one session: one request at a time, the next when the last one's outcome is known.
//!
//! The actor mirrors the session's row. What it asks for names the version it saw; where the database has another
//! (the cart ran out, another node was faster) the actor reads the row again and tries again. A checkout claims the
//! cart: the actor does nothing else until the coordinator says what became of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use tokio::sync::oneshot;
use tracing::{Instrument, Span};

use crate::domain::cart::{Cart, CartLine, CartState};
use crate::domain::ids::{CartKey, CartSessionId, OrderId, ProductId};
use crate::domain::product::Product;
use crate::domain::timestamp::Timestamp;
use crate::observability::trace::step;
use crate::persistence::records::KeptCart;

use super::cart_change::{self, CartParts};
use super::command::{AppliedOutcome, CartView, Command, CommandError};
use super::faults::Moment;
use super::gauge::Ticket;
use super::mailbox::Posted;
use super::registry::{Birth, Passivate};
use super::supervision::ActorKind;

/// What is asked of a cart.
pub struct CartRequest {
    /// The session as the caller gave it.
    pub session: CartSessionId,
    /// What is asked.
    pub ask: CartAsk,
    /// What it is part of.
    pub span: Span,
}

/// What is asked of a cart, and who is told.
pub enum CartAsk {
    /// What is in it, until then.
    Read(Instant, Reply<CartView>),
    /// A change of one line.
    Change(LineRequest, Command<CartView>, Reply<CartView>),
    /// Its end; its units go back to stock.
    Clear(Command<()>, Reply<()>),
    /// To be left alone with it, for a checkout; not begun after then.
    Claim(Instant, oneshot::Sender<Result<Claim, NotClaimed>>),
}

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, CommandError>>;

/// A change of one line.
#[derive(Debug, Clone)]
pub enum LineRequest {
    /// More of a product.
    Add {
        /// Which product; it has an inventory.
        product: Arc<Product>,
        /// How many more, 1 or more.
        quantity: i64,
    },
    /// So many of a product that is in the cart; 0 removes it.
    Set {
        /// Which product.
        product: ProductId,
        /// How many.
        quantity: i64,
    },
}

/// A cart that waits for the end of a checkout.
pub struct Claim {
    /// The cart, open and not empty.
    pub cart: Cart,
    /// It was read for this claim, or so lately that it will do. Else another server may have changed it.
    pub is_new: bool,
    /// To be told what became of it. Dropped, the cart asks the database.
    pub ended: oneshot::Sender<Became>,
}

/// Why a cart is not there for a checkout.
pub enum NotClaimed {
    /// It has become an order.
    Ordered(OrderId),
    /// Something else.
    Refused(CommandError),
}

/// What became of a claimed cart.
pub enum Became {
    /// Nothing.
    Unchanged,
    /// An order.
    Order(OrderId),
}

/// The cart's time is over.
pub struct Expire {
    /// Is told whether the cart has ended; dropped when there was nothing to end.
    pub ended: oneshot::Sender<bool>,
}

impl Message for Expire {
    type Result = ();
}

/// What the actor knows of its session.
enum Known {
    /// Nothing: it has to be read.
    Nothing,
    /// There is no such session.
    Missing,
    /// How it stands.
    Cart(Box<KeptCart>),
}

/// How old the session may be that an answer or a refusal rests on, where other servers may have changed it. (A change
/// that is written needs no such care: it names the version that it saw.)
const SESSION_AGE_MAX: Duration = Duration::from_millis(200);

/// A session as a request finds it.
pub(super) struct Seen {
    pub(super) kept: Option<KeptCart>,
    /// It was read for this request, or so lately that it will do.
    pub(super) is_new: bool,
}

/// What a request leaves.
pub(super) enum Left {
    /// The session as it was.
    Same,
    /// The session as it is now.
    Now(Box<KeptCart>),
    /// Something that only the database knows.
    Unknown,
}

/// The actor.
pub struct CartActor {
    key: CartKey,
    parts: Arc<CartParts>,
    birth: Birth,
    known: Known,
    /// What is known is at least as new as this; `None` is as old as may be.
    since: Option<Instant>,
    /// What is known was read for the request whose turn it is.
    just_read: bool,
    waiting: VecDeque<Waiting>,
    busy: bool,
}

enum Waiting {
    Request(Box<Posted<CartRequest>>),
    Expire(Expire),
}

impl CartActor {
    /// The cart of a session that the database may know.
    #[must_use]
    pub fn of(key: CartKey, parts: Arc<CartParts>, birth: Birth) -> Self {
        let (known, waiting) = (Known::Nothing, VecDeque::new());
        Self { key, parts, birth, known, since: None, just_read: false, waiting, busy: false }
    }

    /// Begins what waits, one after the other; what needs the database or the journal makes the rest wait.
    fn go_on(&mut self, context: &mut Context<Self>) {
        while !self.busy {
            if self.waiting.is_empty() {
                return;
            }
            if self.must_read_for_next() {
                return self.read_session(context);
            }
            let kept = match &self.known {
                Known::Nothing => return self.load(context),
                Known::Missing => None,
                Known::Cart(kept) => Some((**kept).clone()),
            };
            let is_new = std::mem::take(&mut self.just_read) || !self.is_old();
            match self.waiting.pop_front() {
                None => return,
                Some(Waiting::Request(posted)) => self.begin(*posted, kept, is_new, context),
                Some(Waiting::Expire(expire)) => self.expire(expire, kept, context),
            }
        }
    }

    fn load(&mut self, context: &mut Context<Self>) {
        if let Some(kept) = self.parts.opened.take(self.key) {
            self.known = Known::Cart(kept);
            return self.go_on(context);
        }
        self.read_session(context);
    }

    /// Whether the next request is answered from what is known alone, and that may be too old.
    fn must_read_for_next(&self) -> bool {
        let (Some(Waiting::Request(posted)), Known::Cart(kept)) = (self.waiting.front(), &self.known) else {
            return false;
        };
        let from_memory_alone = match posted.message.ask {
            CartAsk::Read(..) => true,
            // What is made of a claimed cart names its version.
            CartAsk::Claim(..) => !is_claimable(&kept.cart, self.parts.clock.now()),
            CartAsk::Change(..) | CartAsk::Clear(..) => false,
        };
        from_memory_alone && !self.just_read && self.is_old()
    }

    fn is_old(&self) -> bool {
        self.parts.store.is_shared() && self.since.is_none_or(|since| since.elapsed() > SESSION_AGE_MAX)
    }

    fn read_session(&mut self, context: &mut Context<Self>) {
        self.busy = true;
        let begun = Instant::now();
        let (store, key) = (Arc::clone(&self.parts.store), self.key);
        let read = async move { store.cart(key).await };
        context.spawn(read.into_actor(self).map(move |read, actor, context| {
            actor.busy = false;
            if read.is_ok() {
                (actor.since, actor.just_read) = (Some(begun), true);
            }
            match read {
                Ok(Some(kept)) => {
                    actor.parts.mirror.compare(&kept.cart);
                    actor.known = Known::Cart(Box::new(kept));
                }
                Ok(None) => actor.known = Known::Missing,
                Err(error) => {
                    let error = CommandError::from(error);
                    actor.birth.gauge.error(&format!("the cart can not be read: {error}"));
                    for waiting in std::mem::take(&mut actor.waiting) {
                        if let Waiting::Request(posted) = waiting {
                            refuse(posted.message.ask, error.clone());
                        }
                    }
                }
            }
            actor.go_on(context);
        }));
    }

    /// Begins a request, unless nobody waits for it any more. A session whose secret is another than the caller's is
    /// one that is not there.
    fn begin(
        &mut self,
        posted: Posted<CartRequest>,
        kept: Option<KeptCart>,
        is_new: bool,
        context: &mut Context<Self>,
    ) {
        let Posted { message: CartRequest { session, ask, span }, mut ticket } = posted;
        if deadline(&ask) <= Instant::now() {
            return refuse(ask, CommandError::Deadline { applied: AppliedOutcome::No });
        }
        ticket.begin();
        self.fault_at(Moment::Before);
        let kept = kept.filter(|kept| same_secret(&kept.cart.id, &session));
        let (parts, step) = (Arc::clone(&self.parts), step!(&span, "cart", key = %self.key));
        match ask {
            CartAsk::Read(_, reply) => {
                let read = async move { (cart_change::read(&parts, session, kept).await, Left::Same) };
                self.run(read.instrument(step), reply, ticket, context);
            }
            CartAsk::Change(request, command, reply) => {
                let seen = Seen { kept, is_new };
                let change = cart_change::change(parts, seen, request, command).instrument(step);
                self.run(change, reply, ticket, context);
            }
            CartAsk::Clear(command, reply) => {
                self.run(cart_change::clear(parts, kept, command).instrument(step), reply, ticket, context);
            }
            CartAsk::Claim(_, reply) => self.claim(Seen { kept, is_new }, reply, ticket, context),
        }
    }

    /// Runs one request to its end; only then the caller is told and the next request begun.
    fn run<T: 'static>(
        &mut self,
        work: impl Future<Output = (Result<T, CommandError>, Left)> + 'static,
        reply: Reply<T>,
        ticket: Ticket,
        context: &mut Context<Self>,
    ) {
        self.busy = true;
        let begun = Instant::now();
        context.spawn(work.into_actor(self).map(move |(answer, left), actor, context| {
            if matches!(left, Left::Now(_)) {
                // Written, or read, since it was begun.
                actor.since = Some(begun);
            }
            actor.fault_at(Moment::After);
            actor.left(left);
            ticket.answered(&answer);
            // A caller who is gone needs no answer.
            drop(reply.send(answer));
            actor.go_on(context);
            actor.leave_if_ended(context);
        }));
    }

    fn claim(
        &mut self,
        Seen { kept, is_new }: Seen,
        reply: oneshot::Sender<Result<Claim, NotClaimed>>,
        ticket: Ticket,
        context: &mut Context<Self>,
    ) {
        let now = self.parts.clock.now();
        let cart = match kept {
            Some(KeptCart { cart, .. }) if is_claimable(&cart, now) => cart,
            not_claimable => {
                ticket.done();
                drop(reply.send(Err(why_not_claimable(not_claimable))));
                return self.leave_if_ended(context);
            }
        };
        let (ended, became) = oneshot::channel();
        self.busy = true;
        let before = cart.clone();
        if reply.send(Ok(Claim { cart, is_new, ended })).is_err() {
            self.busy = false;
            return;
        }
        context.spawn(became.into_actor(self).map(move |became, actor, context| {
            actor.left(match became {
                Ok(Became::Unchanged) => Left::Same,
                Ok(Became::Order(order)) => Left::Now(Box::new(cart_change::ordered(before, order))),
                Err(_) => Left::Unknown,
            });
            ticket.done();
            actor.go_on(context);
            actor.leave_if_ended(context);
        }));
    }

    fn expire(&mut self, expire: Expire, kept: Option<KeptCart>, context: &mut Context<Self>) {
        let Some(kept) = kept.filter(|kept| kept.cart.state == CartState::Open) else { return };
        self.busy = true;
        let work = cart_change::expire(Arc::clone(&self.parts), kept.cart);
        context.spawn(work.into_actor(self).map(|left, actor, context| {
            let _ = expire.ended.send(matches!(left, Left::Now(_)));
            actor.left(left);
            actor.go_on(context);
            actor.leave_if_ended(context);
        }));
    }

    fn left(&mut self, left: Left) {
        self.busy = false;
        match left {
            Left::Same => {}
            Left::Now(kept) => self.known = Known::Cart(kept),
            Left::Unknown => {
                self.known = Known::Nothing;
                self.parts.mirror.recheck(self.key);
            }
        }
    }

    fn fault_at(&self, moment: Moment) {
        self.parts.faults.at(ActorKind::Cart, moment, Some(self.key.0));
    }

    /// An ended session, or one that never began, needs no actor.
    fn leave_if_ended(&mut self, context: &mut Context<Self>) {
        let ended = match &self.known {
            Known::Nothing => false,
            Known::Missing => true,
            Known::Cart(kept) => kept.cart.state != CartState::Open || kept.cart.version == 0,
        };
        if ended {
            self.leave(context);
        }
    }

    fn leave(&mut self, context: &mut Context<Self>) {
        if !self.busy && self.waiting.is_empty() && self.birth.gauge.close_if_empty() {
            self.parts.registry.retire(self.key, self.birth.incarnation);
            context.stop();
        }
    }
}

fn is_claimable(cart: &Cart, now: Timestamp) -> bool {
    cart.is_live(now) && !cart.lines.is_empty()
}

/// Why a checkout does not get this cart. What was in an expired one is told, and not held again.
fn why_not_claimable(kept: Option<KeptCart>) -> NotClaimed {
    let Some(KeptCart { cart, order }) = kept else { return NotClaimed::Refused(CommandError::CartEmpty) };
    let lines: Vec<CartLine> = cart.lines;
    match (cart.state, order) {
        (CartState::Ordered, Some(order)) => NotClaimed::Ordered(order),
        (CartState::Ordered, None) | (CartState::Cleared, _) => NotClaimed::Refused(CommandError::CartEmpty),
        (CartState::Open | CartState::Expired, _) if lines.is_empty() => NotClaimed::Refused(CommandError::CartEmpty),
        (CartState::Open | CartState::Expired, _) => NotClaimed::Refused(CommandError::HoldExpired { lines }),
    }
}

fn same_secret(one: &CartSessionId, other: &CartSessionId) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(&one.secret, &other.secret).is_ok()
}

fn refuse(ask: CartAsk, error: CommandError) {
    match ask {
        CartAsk::Read(_, reply) | CartAsk::Change(_, _, reply) => drop(reply.send(Err(error))),
        CartAsk::Clear(_, reply) => drop(reply.send(Err(error))),
        CartAsk::Claim(_, reply) => drop(reply.send(Err(NotClaimed::Refused(error)))),
    }
}

/// Until when the caller waits.
fn deadline(ask: &CartAsk) -> Instant {
    match ask {
        CartAsk::Read(deadline, _) | CartAsk::Claim(deadline, _) => *deadline,
        CartAsk::Change(_, command, _) => command.deadline,
        CartAsk::Clear(command, _) => command.deadline,
    }
}

impl Actor for CartActor {
    type Context = Context<Self>;
}

impl Handler<Posted<CartRequest>> for CartActor {
    type Result = ();

    fn handle(&mut self, posted: Posted<CartRequest>, context: &mut Self::Context) {
        self.waiting.push_back(Waiting::Request(Box::new(posted)));
        self.go_on(context);
    }
}

impl Handler<Expire> for CartActor {
    type Result = ();

    fn handle(&mut self, expire: Expire, context: &mut Self::Context) {
        // One that waits already is enough, however often the sweep comes by.
        if !self.waiting.iter().any(|waiting| matches!(waiting, Waiting::Expire(_))) {
            self.waiting.push_back(Waiting::Expire(expire));
        }
        self.go_on(context);
    }
}

impl Handler<Passivate> for CartActor {
    type Result = ();

    fn handle(&mut self, _: Passivate, context: &mut Self::Context) {
        self.leave(context);
    }
}
