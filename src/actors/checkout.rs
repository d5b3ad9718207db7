//! A checkout, from the claimed cart to the order: one journal entry that ends the cart, sells its holds, places the
//! order and puts it into the outbox. And the later changes of an order, each one entry too.
//!
//! Called by the order coordinator, on a task of its own each, on the coordinator's thread.

use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use crate::domain::cart::{Cart, CartState};
use crate::domain::ids::{MovementId, OrderId, ProductId, UserId};
use crate::domain::order::{OrderLine, OrderStatus, Totals};
use crate::domain::stock::Move;
use crate::domain::timestamp::Timestamp;
use crate::observability::trace;
use crate::persistence::SharedStore;
use crate::persistence::clock::Clock;
use crate::persistence::entry::{Applied, Entry, NewMovement, OrderChange, Refusal, Remember};
use crate::persistence::records::{Order, OrderedLine};

use super::cart::{Became, NotClaimed};
use super::cart_change::{CartParts, ending, is_stale, remember};
use super::carts::Carts;
use super::catalogue::Catalogue;
use super::command::{AppliedOutcome, CheckedOut, Command, CommandError, OrderTransition};
use super::faults::{Faults, Moment};
use super::journal::{JournalError, JournalHandle};
use super::mailer::MailRoom;
use super::relay::RelayHandle;
use super::shop::{CheckoutRequest, ShopRules};
use super::supervision::ActorKind;

/// Tries of a checkout or a transition that meets somebody else at the same cart or order.
const TRIES_MAX: u32 = 5;

/// What checkouts and transitions need.
#[derive(Clone)]
pub struct CheckoutParts {
    /// Where orders are read.
    pub store: SharedStore,
    /// The time that decides.
    pub clock: Clock,
    /// Where entries go.
    pub journal: JournalHandle,
    /// Where carts are claimed.
    pub carts: Carts,
    /// Names, prices and versions.
    pub catalogue: Arc<Catalogue>,
    /// Mails to buyers.
    pub mail: Arc<MailRoom>,
    /// Who is told that there are events.
    pub relay: RelayHandle,
    /// The rules of the shop.
    pub rules: ShopRules,
    /// What goes wrong because a test says so.
    pub(super) faults: Faults,
}

impl CheckoutParts {
    /// What the carts work with, and what comes after a checkout.
    #[must_use]
    pub fn new(carts: Carts, mail: Arc<MailRoom>, relay: RelayHandle) -> Self {
        let CartParts { store, clock, journal, catalogue, rules, faults, .. } = carts.parts().clone();
        Self { store, clock, journal, carts, catalogue, mail, relay, rules, faults }
    }
}

/// Makes an order of a cart.
pub(super) async fn checkout(
    parts: &CheckoutParts,
    request: &CheckoutRequest,
    command: &Command<Order>,
) -> Result<CheckedOut, CommandError> {
    let _placing = parts.relay.job().placing.begin();
    for _ in 0..TRIES_MAX {
        if command.deadline <= Instant::now() {
            return Err(CommandError::Deadline { applied: AppliedOutcome::No });
        }
        let claim = match parts.carts.claim(request.session, command.deadline).await {
            Ok(claim) => claim,
            Err(NotClaimed::Ordered(order)) => return ordered_before(parts, order, request.buyer.user).await,
            Err(NotClaimed::Refused(error)) => return Err(error),
        };
        let (order, versions) = match price(parts, &claim.cart, request).await {
            Ok(priced) => priced,
            // Another server may have changed what this says of the cart. Dropping the claim makes it ask the database.
            Err(_) if !claim.is_new => continue,
            Err(error) => {
                // The cart is as it was; it need not ask the database.
                drop(claim.ended.send(Became::Unchanged));
                return Err(error);
            }
        };
        let order = Arc::new(order);
        let entry = placing(&claim.cart, &order, versions, command);
        parts.faults.pass(ActorKind::Orders, Moment::During, None).await;
        match parts.journal.write(entry, command.deadline).await {
            Ok(_) => {
                parts.faults.pass(ActorKind::Orders, Moment::After, None).await;
                drop(claim.ended.send(Became::Order(order.id)));
                parts.relay.wake();
                return Ok(CheckedOut { order, placed: true });
            }
            Err(JournalError::Refused(Refusal::ProductChanged { product })) => {
                parts.catalogue.changed(product);
                drop(claim.ended.send(Became::Unchanged));
            }
            // Somebody else was at the cart. Dropping the claim makes it ask the database; then again.
            Err(error) if is_stale(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(CommandError::Contended)
}

/// The cart had become an order: its buyer gets that, nobody else.
async fn ordered_before(parts: &CheckoutParts, order: OrderId, buyer: UserId) -> Result<CheckedOut, CommandError> {
    let order = parts.store.order(order).await?.ok_or(CommandError::OrderNotFound)?;
    if order.user != buyer {
        return Err(CommandError::CartOrdered);
    }
    Ok(CheckedOut { order: Arc::new(order), placed: false })
}

/// The order that the cart comes to at the prices of now, and the versions of the products that say so.
async fn price(
    parts: &CheckoutParts,
    cart: &Cart,
    request: &CheckoutRequest,
) -> Result<(Order, Vec<(ProductId, i64)>), CommandError> {
    let mut lines = Vec::with_capacity(cart.lines.len());
    let mut versions = Vec::with_capacity(cart.lines.len());
    for line in &cart.lines {
        let product = parts.catalogue.product(line.product).await?.ok_or(CommandError::ProductNotFound)?;
        let total = product.price.times(line.quantity).ok_or(CommandError::TotalOverflow)?;
        versions.push((product.id, product.version));
        lines.push(OrderedLine {
            line: OrderLine {
                product: product.id,
                name: product.name.clone(),
                sku: product.sku.clone(),
                price: product.price,
                quantity: line.quantity,
                total,
            },
            inventory: line.inventory,
        });
    }
    let totals = Totals::of(lines.iter().map(|ordered| ordered.line.total), parts.rules.tax)
        .map_err(|_| CommandError::TotalOverflow)?;
    if request.expected_total.is_some_and(|expected| expected != totals.grand_total) {
        return Err(CommandError::PriceChanged { grand_total: totals.grand_total });
    }
    let now = parts.clock.now();
    let order = Order {
        id: OrderId(Uuid::now_v7()),
        cart: cart.id,
        user: request.buyer.user,
        user_name: request.buyer.name.clone(),
        user_email: request.buyer.email.clone(),
        currency: parts.rules.currency,
        totals,
        status: OrderStatus::Pending,
        sequence: 1,
        shipping_address: request.shipping_address.clone(),
        payment_reference: None,
        lines,
        created_at: now,
        updated_at: now,
    };
    Ok((order, versions))
}

/// The entry that ends the cart as this order.
fn placing(cart: &Cart, order: &Arc<Order>, versions: Vec<(ProductId, i64)>, command: &Command<Order>) -> Entry {
    let mut entry = ending(cart, CartState::Ordered, &command.actor);
    for movement in &mut entry.movements {
        movement.order = Some(order.id);
    }
    entry.order = Some(OrderChange::Place(Arc::clone(order)));
    entry.traceparent = trace::current_traceparent();
    entry.products = versions;
    entry.remember = remember(command.remember.as_ref(), (**order).clone());
    entry
}

/// Changes the status of an order, from whatever it is when its turn comes.
pub(super) async fn change(
    parts: &CheckoutParts,
    transition: &OrderTransition,
    command: &Command<Order>,
) -> Result<Arc<Order>, CommandError> {
    for _ in 0..TRIES_MAX {
        if command.deadline <= Instant::now() {
            return Err(CommandError::Deadline { applied: AppliedOutcome::No });
        }
        let seen = parts.store.order(transition.order).await?.ok_or(CommandError::OrderNotFound)?;
        if !seen.status.may_become(transition.to) {
            return Err(CommandError::InvalidTransition { from: seen.status, to: transition.to });
        }
        let after = changed(&seen, transition, parts.clock.now());
        let entry = transition_entry(parts, &seen, &after, transition, command)?;
        match parts.journal.write(entry, command.deadline).await {
            Ok(applied) => {
                parts.relay.wake();
                return Ok(Arc::new(Order { updated_at: applied.at, ..after }));
            }
            Err(JournalError::Refused(Refusal::OrderChanged)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(CommandError::Contended)
}

fn changed(seen: &Order, transition: &OrderTransition, now: Timestamp) -> Order {
    let mut after = seen.clone();
    after.status = transition.to;
    after.sequence += 1;
    after.updated_at = now;
    if let Some(reference) = &transition.payment_reference {
        after.payment_reference = Some(reference.clone());
    }
    after
}

fn transition_entry(
    parts: &CheckoutParts,
    seen: &Order,
    after: &Order,
    transition: &OrderTransition,
    command: &Command<Order>,
) -> Result<Entry, CommandError> {
    let restock = |ordered: &OrderedLine| NewMovement {
        id: MovementId(Uuid::now_v7()),
        inventory: ordered.inventory,
        stock_move: Move::restock(ordered.line.quantity),
        cart: None,
        order: Some(seen.id),
        reference: None,
        actor: Arc::clone(&command.actor),
    };
    let cancelled = transition.to == OrderStatus::Cancelled;
    let remember = command.remember.as_ref().map(|named| {
        let (render, after) = (Arc::clone(&named.render), after.clone());
        let with_time = move |applied: &Applied| render(&Order { updated_at: applied.at, ..after.clone() });
        Remember { key: named.key.clone(), fingerprint: named.fingerprint, render: Arc::new(with_time) }
    });
    Ok(Entry {
        movements: if cancelled { seen.lines.iter().map(restock).collect() } else { Vec::new() },
        order: Some(OrderChange::Transition {
            id: seen.id,
            seen: seen.status,
            to: transition.to,
            sequence: after.sequence,
            payment_reference: transition.payment_reference.clone(),
        }),
        traceparent: trace::current_traceparent(),
        mails: vec![parts.mail.order_status(after, parts.clock.now())?],
        remember,
        ..Entry::default()
    })
}
