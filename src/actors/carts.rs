//! The way to all carts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::domain::cart::Cart;
use crate::domain::ids::{CartKey, CartSessionId, ProductId};
use crate::domain::product::Product;
use crate::observability::trace;
use crate::persistence::records::KeptCart;

use super::cart::{CartActor, CartAsk, CartRequest, Claim, Expire, Left, LineRequest, NotClaimed, Seen};
use super::cart_change::{self, CartParts};
use super::command::{AppliedOutcome, CartView, Command, CommandError};
use super::registry::{Birth, Registry};

/// How long the sweep waits for a cart that is at something else.
const EXPIRY_PATIENCE: Duration = Duration::from_millis(250);

/// The way to all carts.
#[derive(Clone)]
pub struct Carts {
    parts: Arc<CartParts>,
}

impl Carts {
    /// Actors made of these parts.
    #[must_use]
    pub fn new(parts: CartParts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// What the actors are made of.
    pub(super) fn parts(&self) -> &CartParts {
        &self.parts
    }

    /// Where they are listed.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry<CartKey, CartActor>> {
        &self.parts.registry
    }

    /// What is in a cart; nobody waits for it after `deadline`.
    ///
    /// # Errors
    /// That the cart could not say.
    pub async fn read(&self, session: CartSessionId, deadline: Instant) -> Result<CartView, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.post(session, CartAsk::Read(deadline, reply))?;
        answer.await.unwrap_or(Err(CommandError::ActorDied { applied: AppliedOutcome::No }))
    }

    /// Puts units of a product into a new cart. Nobody else knows of it yet, so that takes no actor.
    ///
    /// # Errors
    /// [`CommandError`]; then there is no new cart.
    pub async fn open(
        &self,
        product: Arc<Product>,
        quantity: i64,
        command: Command<CartView>,
    ) -> Result<CartView, CommandError> {
        let session = new_session();
        let cart = Cart::fresh(session, self.parts.clock.now(), self.parts.rules.lifetime);
        let (kept, request) = (KeptCart { cart, order: None }, LineRequest::Add { product, quantity });
        let (answer, left) =
            cart_change::change(Arc::clone(&self.parts), Seen { kept: Some(kept), is_new: true }, request, command)
                .await;
        match left {
            Left::Now(kept) if kept.cart.version > 0 => self.parts.opened.keep(kept),
            Left::Now(_) | Left::Same => {}
            Left::Unknown => self.parts.mirror.recheck(session.key),
        }
        answer
    }

    /// Puts more units of a product into a cart.
    ///
    /// # Errors
    /// [`CommandError::CartNotFound`] when the session is not open; see [`CommandError`].
    pub async fn add(
        &self,
        session: CartSessionId,
        product: Arc<Product>,
        quantity: i64,
        command: Command<CartView>,
    ) -> Result<CartView, CommandError> {
        self.change(session, LineRequest::Add { product, quantity }, command).await
    }

    /// Sets how many units of a product a cart holds.
    ///
    /// # Errors
    /// [`CommandError::CartNotFound`] when the session is not open; see [`CommandError`].
    pub async fn set(
        &self,
        session: CartSessionId,
        product: ProductId,
        quantity: i64,
        command: Command<CartView>,
    ) -> Result<CartView, CommandError> {
        self.change(session, LineRequest::Set { product, quantity }, command).await
    }

    async fn change(
        &self,
        session: CartSessionId,
        request: LineRequest,
        command: Command<CartView>,
    ) -> Result<CartView, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.post(session, CartAsk::Change(request, command, reply))?;
        answer.await.unwrap_or(Err(CommandError::ActorDied { applied: AppliedOutcome::Unknown }))
    }

    /// Ends a cart; its units are back when this returns.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn clear(&self, session: CartSessionId, command: Command<()>) -> Result<(), CommandError> {
        let (reply, answer) = oneshot::channel();
        self.post(session, CartAsk::Clear(command, reply))?;
        answer.await.unwrap_or(Err(CommandError::ActorDied { applied: AppliedOutcome::Unknown }))
    }

    /// Claims a cart for a checkout, until `deadline`: it does nothing else until told what became of it.
    pub(super) async fn claim(&self, session: CartSessionId, deadline: Instant) -> Result<Claim, NotClaimed> {
        let (reply, answer) = oneshot::channel();
        self.post(session, CartAsk::Claim(deadline, reply)).map_err(NotClaimed::Refused)?;
        let died = CommandError::ActorDied { applied: AppliedOutcome::No };
        answer.await.unwrap_or(Err(NotClaimed::Refused(died)))
    }

    /// Ends a cart whose time is over: by its actor when it has one, else without waking one. Gives whether it ended.
    pub(super) async fn expire(&self, cart: Cart) -> bool {
        match self.parts.registry.find(cart.id.key) {
            Some((mailbox, _)) => {
                let (ended, answer) = oneshot::channel();
                mailbox.tell(Expire { ended });
                // A cart that is at something else ends when that is over; the others do not wait for it.
                matches!(tokio::time::timeout(EXPIRY_PATIENCE, answer).await, Ok(Ok(true)))
            }
            None => {
                drop(self.parts.opened.take(cart.id.key));
                matches!(cart_change::expire(Arc::clone(&self.parts), cart).await, Left::Now(_))
            }
        }
    }

    /// Lets go what had no message for `idle`.
    pub(super) fn passivate_idle(&self, idle: Duration) {
        self.parts.registry.passivate_idle(idle);
        self.parts.opened.forget_older_than(idle);
    }

    /// Lets a cart's actor go, if it has nothing to do.
    pub(super) fn forget(&self, key: CartKey) {
        if let Some((mailbox, _)) = self.parts.registry.find(key) {
            mailbox.tell(super::registry::Passivate);
        }
    }

    fn post(&self, session: CartSessionId, ask: CartAsk) -> Result<(), CommandError> {
        let parts = Arc::clone(&self.parts);
        let start = move |birth: Birth| CartActor::of(session.key, Arc::clone(&parts), birth);
        let posted = self.parts.registry.post(session.key, CartRequest { session, ask, span: trace::here() }, start);
        posted.map_err(|(_, unposted)| CommandError::Unposted(unposted))
    }
}

/// A session that nobody can guess: its secret has 122 random bits, from a generator in this process which the system seeds.
fn new_session() -> CartSessionId {
    CartSessionId { key: CartKey(Uuid::now_v7()), secret: Uuid::new_v4().into_bytes() }
}
