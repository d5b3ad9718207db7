//! What a cart's requests do: decide by the domain, build the entry, have it written, and say what the session is now.
//!
//! Called by the cart's actor, one at a time a session; for a cart that nobody else knows of yet, without one.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::domain::cart::{Cart, CartState, HoldState, LineChange};
use crate::domain::ids::{CartKey, CartSessionId, InventoryId, MovementId, OrderId};
use crate::domain::money::Money;
use crate::domain::stock::Move;
use crate::persistence::SharedStore;
use crate::persistence::clock::Clock;
use crate::persistence::entry::{Applied, Entry, NewMovement, Refusal, Remember, SessionAction, SessionChange};
use crate::persistence::records::KeptCart;

use super::cart::{CartActor, Left, LineRequest, Seen};
use super::catalogue::Catalogue;
use super::command::{AppliedOutcome, CartView, CartViewLine, Command, CommandError, RememberAs};
use super::faults::{Faults, Moment};
use super::inventories::Inventories;
use super::journal::{JournalError, JournalHandle};
use super::mirror::Mirror;
use super::opened::OpenedCarts;
use super::registry::Registry;
use super::shop::ShopRules;
use super::supervision::ActorKind;

/// Tries of a request whose cart is changed by somebody else (an expiry, another node) while it runs.
const TRIES_MAX: u32 = 4;
/// How long an expiry may wait for the journal. Nobody waits for it, so it may be long.
const EXPIRY_DEADLINE: Duration = Duration::from_secs(30);

/// What a cart's actor needs.
#[derive(Clone)]
pub struct CartParts {
    /// Where sessions are read.
    pub store: SharedStore,
    /// The time that decides.
    pub clock: Clock,
    /// What gives stock goes here.
    pub journal: JournalHandle,
    /// What takes stock goes here.
    pub inventories: Inventories,
    /// Names and prices.
    pub catalogue: Arc<Catalogue>,
    /// Where it is seen to that carts are shown as the database has them.
    pub mirror: Mirror,
    /// The rules of the shop.
    pub rules: ShopRules,
    /// Where the actor is listed.
    pub registry: Arc<Registry<CartKey, CartActor>>,
    /// What was opened without an actor.
    pub opened: Arc<OpenedCarts>,
    /// What goes wrong because a test says so.
    pub(super) faults: Faults,
}

/// The cart as it is shown. One that is not live has nothing in it.
pub(super) async fn read(
    parts: &CartParts,
    session: CartSessionId,
    kept: Option<KeptCart>,
) -> Result<CartView, CommandError> {
    match kept.filter(|kept| kept.cart.is_live(parts.clock.now())) {
        Some(kept) => view(parts, &kept.cart).await,
        None => Ok(CartView { session: Some(session), lines: Vec::new(), subtotal: Money::ZERO, expires_at: None }),
    }
}

/// The cart with the names and prices of now.
async fn view(parts: &CartParts, cart: &Cart) -> Result<CartView, CommandError> {
    let mut lines = Vec::with_capacity(cart.lines.len());
    let mut subtotal = Money::ZERO;
    for line in &cart.lines {
        let product = parts.catalogue.product(line.product).await?.ok_or(CommandError::ProductNotFound)?;
        let total = product.price.times(line.quantity).ok_or(CommandError::TotalOverflow)?;
        subtotal = subtotal.plus(total).ok_or(CommandError::TotalOverflow)?;
        lines.push(CartViewLine {
            product: line.product,
            inventory: line.inventory,
            quantity: line.quantity,
            sku: product.sku.clone(),
            name: product.name.clone(),
            price: product.price,
            total,
        });
    }
    Ok(CartView { session: Some(cart.id), lines, subtotal, expires_at: Some(cart.expires_at) })
}

/// Changes one line. [`CommandError::CartNotFound`] when the session takes no lines any more.
pub(super) async fn change(
    parts: Arc<CartParts>,
    Seen { kept, is_new }: Seen,
    request: LineRequest,
    command: Command<CartView>,
) -> (Result<CartView, CommandError>, Left) {
    let Some(kept) = kept else { return (Err(CommandError::CartNotFound), Left::Same) };
    let (parts, request, command) = (&*parts, &request, &command);
    tries(parts, kept, is_new, |cart| async move {
        let now = parts.clock.now();
        if !cart.is_live(now) {
            return Err(Failed::Said(CommandError::CartNotFound));
        }
        let limits = parts.rules.limits;
        let line = match request {
            LineRequest::Add { product, quantity } => {
                let inventory = product.inventory.ok_or(CommandError::InsufficientStock { available: 0 })?;
                Some(cart.add(product.id, inventory, *quantity, limits).map_err(CommandError::from)?)
            }
            LineRequest::Set { product, quantity } => {
                cart.set(*product, *quantity, limits).map_err(CommandError::from)?
            }
        };
        let after = cart.changed(line, now, parts.rules.lifetime);
        let view = view(parts, &after).await?;
        let entry = entry_of_change(&cart, &after, line, &view, command);
        let takes = line.map_or(0, |line| line.units_taken()).max(0);
        write(parts, entry, takes, line.map(|line| line.inventory()), command.deadline).await?;
        parts.faults.pass(ActorKind::Cart, Moment::During, Some(cart.id.key.0)).await;
        Ok((view, Some(KeptCart { cart: after, order: None })))
    })
    .await
}

fn entry_of_change(
    cart: &Cart,
    after: &Cart,
    line: Option<LineChange>,
    view: &CartView,
    command: &Command<CartView>,
) -> Entry {
    let expires_at = after.expires_at;
    let action = match cart.version {
        0 => SessionAction::Open { secret: cart.id.secret, created_at: cart.created_at, expires_at },
        seen => SessionAction::Touch { seen, expires_at },
    };
    let movement = line.filter(|line| line.units_taken() != 0).map(|line| {
        let units = line.units_taken();
        let stock_move = if units > 0 { Move::hold(units) } else { Move::release(-units) };
        movement(cart.id.key, line, stock_move, &command.actor)
    });
    Entry {
        session: Some(SessionChange { key: cart.id.key, action }),
        lines: line.into_iter().collect(),
        line_end: Some(HoldState::Released),
        leaves: Some(after.clone()),
        movements: movement.into_iter().collect(),
        remember: remember(command.remember.as_ref(), view.clone()),
        ..Entry::default()
    }
}

fn movement(cart: CartKey, line: LineChange, stock_move: Move, actor: &Arc<str>) -> NewMovement {
    NewMovement {
        id: MovementId(Uuid::now_v7()),
        inventory: line.inventory(),
        stock_move,
        cart: Some(cart),
        order: None,
        reference: None,
        actor: Arc::clone(actor),
    }
}

/// The answer is known before the commit: the cart is this request's alone until then.
pub(super) fn remember<T: Send + Sync + 'static>(named: Option<&RememberAs<T>>, answer: T) -> Option<Remember> {
    named.map(|named| {
        let render = Arc::clone(&named.render);
        Remember {
            key: named.key.clone(),
            fingerprint: named.fingerprint,
            render: Arc::new(move |_: &Applied| render(&answer)),
        }
    })
}

/// Ends the cart, whether or not its time is over. Nothing happens when it has ended.
pub(super) async fn clear(
    parts: Arc<CartParts>,
    kept: Option<KeptCart>,
    command: Command<()>,
) -> (Result<(), CommandError>, Left) {
    let Some(kept) = kept else { return (Ok(()), Left::Same) };
    let (parts, command) = (&*parts, &command);
    // What it says of a cart that has ended does not change any more.
    tries(parts, kept, true, |cart| async move {
        if cart.state != CartState::Open || cart.version == 0 {
            return Ok(((), None));
        }
        let mut entry = ending(&cart, CartState::Cleared, &command.actor);
        entry.remember = remember(command.remember.as_ref(), ());
        write(parts, entry, 0, None, command.deadline).await?;
        Ok(((), Some(ended(cart, CartState::Cleared))))
    })
    .await
}

/// Ends the cart because its time is over; the database's clock decides whether it is.
pub(super) async fn expire(parts: Arc<CartParts>, cart: Cart) -> Left {
    let entry = ending(&cart, CartState::Expired, &Arc::from("expiry"));
    match write(&parts, entry, 0, None, Instant::now() + EXPIRY_DEADLINE).await {
        Ok(_) => Left::Now(Box::new(ended(cart, CartState::Expired))),
        // The next sweep tries again. When many wait, that is no news.
        Err(Failed::Said(CommandError::Unposted(_))) => Left::Same,
        Err(Failed::Said(error)) => {
            tracing::warn!(%error, cart = %cart.id.key, "a cart did not expire; it is tried again");
            Left::Unknown
        }
        Err(Failed::Stale) => Left::Unknown,
    }
}

/// The entry that ends a cart and gives back what it holds.
pub(super) fn ending(cart: &Cart, state: CartState, actor: &Arc<str>) -> Entry {
    let (line_end, move_of): (HoldState, fn(i64) -> Move) = match state {
        CartState::Ordered => (HoldState::Sold, Move::sell),
        CartState::Expired => (HoldState::Expired, Move::expire),
        CartState::Cleared | CartState::Open => (HoldState::Released, Move::release),
    };
    let lines: Vec<LineChange> = cart.lines.iter().map(|line| LineChange::End(*line)).collect();
    let movements =
        lines.iter().map(|line| movement(cart.id.key, *line, move_of(-line.units_taken()), actor)).collect();
    let action = SessionAction::End { seen: cart.version, state };
    Entry {
        session: Some(SessionChange { key: cart.id.key, action }),
        lines,
        line_end: Some(line_end),
        leaves: Some(ended(cart.clone(), state).cart),
        movements,
        ..Entry::default()
    }
}

/// The cart after its end as `state`.
fn ended(mut cart: Cart, state: CartState) -> KeptCart {
    cart.state = state;
    cart.version += 1;
    KeptCart { cart, order: None }
}

/// The cart after it became an order.
pub(super) fn ordered(cart: Cart, order: OrderId) -> KeptCart {
    KeptCart { order: Some(order), ..ended(cart, CartState::Ordered) }
}

/// Why a try came to nothing.
enum Failed {
    /// The cart is not as it was seen: to be read and tried again.
    Stale,
    /// The caller is to be told.
    Said(CommandError),
}

impl<E: Into<CommandError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Said(error.into())
    }
}

async fn write(
    parts: &CartParts,
    entry: Entry,
    takes: i64,
    taken_from: Option<InventoryId>,
    deadline: Instant,
) -> Result<Applied, Failed> {
    let written = match taken_from {
        Some(inventory) if takes > 0 => parts.inventories.change(inventory, entry, takes, deadline).await,
        _ => parts.journal.write(entry, deadline).await,
    };
    written.map_err(|error| if is_stale(&error) { Failed::Stale } else { Failed::Said(error.into()) })
}

/// Whether the session was not as it was seen.
pub(super) fn is_stale(error: &JournalError) -> bool {
    matches!(
        error,
        JournalError::Refused(
            Refusal::SessionChanged | Refusal::SessionTime | Refusal::HoldChanged | Refusal::AlreadyOrdered
        )
    )
}

/// Runs one try after another until the cart was as it was seen. A try gives the answer and the session as it is
/// then, if it changed. What an unclear outcome left, the database knows.
async fn tries<T, F, Fut>(
    parts: &CartParts,
    first: KeptCart,
    mut is_new: bool,
    attempt: F,
) -> (Result<T, CommandError>, Left)
where
    F: Fn(Cart) -> Fut,
    Fut: Future<Output = Result<(T, Option<KeptCart>), Failed>>,
{
    let (mut kept, mut was_read) = (first, false);
    // What was neither written nor read is no newer than it was.
    let unwritten = |kept: KeptCart, was_read| if was_read { Left::Now(Box::new(kept)) } else { Left::Same };
    for _ in 0..TRIES_MAX {
        match attempt(kept.cart.clone()).await {
            Ok((answer, Some(after))) => return (Ok(answer), Left::Now(Box::new(after))),
            Ok((answer, None)) => return (Ok(answer), unwritten(kept, was_read)),
            // Another server may have put in what is missed here.
            Err(Failed::Said(CommandError::CartNotFound | CommandError::Cart(_))) if !is_new => {}
            Err(Failed::Said(error)) => {
                let left = match error.applied() {
                    AppliedOutcome::No => unwritten(kept, was_read),
                    AppliedOutcome::Unknown => Left::Unknown,
                };
                return (Err(error), left);
            }
            Err(Failed::Stale) => {}
        }
        match parts.store.cart(kept.cart.id.key).await {
            Ok(Some(now)) => (kept, is_new, was_read) = (now, true, true),
            Ok(None) => return (Err(CommandError::CartNotFound), Left::Unknown),
            Err(error) => return (Err(error.into()), Left::Unknown),
        }
    }
    (Err(CommandError::Contended), Left::Unknown)
}
