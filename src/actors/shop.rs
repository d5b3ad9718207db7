//! What the layer above may ask for. Every call goes to an actor, may be made from any thread or runtime, and
//! is done to its end whether or not the caller stays.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;

use crate::domain::cart::{Lifetime, Limits};
use crate::domain::ids::{CartSessionId, InventoryId, ProductId, UserId};
use crate::domain::money::{Currency, Money, TaxRate};
use crate::domain::product::{Product, ProductStatus};
use crate::domain::stock::{Action, Reason};
use crate::persistence::records::Order;

use super::carts::Carts;
use super::catalogue::Catalogue;
use super::command::{AppliedOutcome, CartView, CheckedOut, Command, CommandError, OrderTransition, StockView};
#[cfg(feature = "fault-injection")]
use super::faults::Faults;
use super::inventories::Inventories;
use super::mailer::MailerHandle;
use super::orders::OrdersHandle;
use super::roster::Roster;
use super::stock_change;

/// The rules of this shop.
#[derive(Debug, Clone, Copy)]
pub struct ShopRules {
    /// The currency of all its prices.
    pub currency: Currency,
    /// The tax on an order's subtotal.
    pub tax: TaxRate,
    /// How long carts live.
    pub lifetime: Lifetime,
    /// How much a cart may hold.
    pub limits: Limits,
}

/// Who checks out.
#[derive(Debug, Clone)]
pub struct Buyer {
    /// The user.
    pub user: UserId,
    /// Their name.
    pub name: String,
    /// Their address.
    pub email: String,
}

/// What a checkout asks for.
#[derive(Debug, Clone)]
pub struct CheckoutRequest {
    /// The cart.
    pub session: CartSessionId,
    /// Who buys.
    pub buyer: Buyer,
    /// Where it goes: a JSON text, string or object.
    pub shipping_address: Option<String>,
    /// What the buyer expects to pay in all.
    pub expected_total: Option<Money>,
}

/// A change of stock by hand or by a warehouse system.
#[derive(Debug, Clone)]
pub struct StockRequest {
    /// Whose stock.
    pub inventory: InventoryId,
    /// In or out.
    pub action: Action,
    /// How many units, 1 or more.
    pub units: i64,
    /// Why.
    pub reason: Reason,
    /// What the one who asks calls it.
    pub reference: Option<String>,
}

/// What the shop is made of.
#[derive(Clone)]
pub(super) struct ShopParts {
    pub(super) rules: ShopRules,
    pub(super) runtime: Handle,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) carts: Carts,
    pub(super) inventories: Inventories,
    pub(super) orders: OrdersHandle,
    pub(super) mailer: MailerHandle,
    pub(super) roster: Roster,
    #[cfg(feature = "fault-injection")]
    pub(super) faults: Faults,
}

/// The shop's actors, as one thing to ask. Clones ask the same actors.
#[derive(Clone)]
pub struct Shop {
    parts: Arc<ShopParts>,
}

impl Shop {
    pub(super) fn new(parts: ShopParts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// The rules of this shop.
    #[must_use]
    pub fn rules(&self) -> &ShopRules {
        &self.parts.rules
    }

    /// Puts units of a product into a cart and holds them. `sees_drafts`: the caller is an admin. A session that is
    /// not open gives a new cart.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn add_to_cart(
        &self,
        session: Option<CartSessionId>,
        product: ProductId,
        inventory: Option<InventoryId>,
        quantity: i64,
        sees_drafts: bool,
        command: Command<CartView>,
    ) -> Result<CartView, CommandError> {
        within(command.deadline, async {
            let product = self.product(product).await?.ok_or(CommandError::ProductNotFound)?;
            if product.status == ProductStatus::Draft && !sees_drafts {
                return Err(CommandError::ProductNotFound);
            }
            if inventory.is_some() && inventory != product.inventory {
                return Err(CommandError::InventoryMismatch { expected: product.inventory });
            }
            if let Some(session) = session {
                match self.parts.carts.add(session, Arc::clone(&product), quantity, command.clone()).await {
                    Err(CommandError::CartNotFound) => {}
                    answer => return answer,
                }
            }
            self.parts.carts.open(product, quantity, command).await
        })
        .await
    }

    /// A cart as it is now; an empty one when the session is not open.
    ///
    /// # Errors
    /// That the cart could not say by `deadline`.
    pub async fn cart(&self, session: Option<CartSessionId>, deadline: Instant) -> Result<CartView, CommandError> {
        match session {
            Some(session) => read_within(deadline, self.parts.carts.read(session, deadline)).await,
            None => Ok(CartView { session: None, lines: Vec::new(), subtotal: Money::ZERO, expires_at: None }),
        }
    }

    /// Sets how many units of a product a cart holds; 0 removes its line.
    ///
    /// # Errors
    /// [`CommandError::CartNotFound`] when the session is not open; see [`CommandError`].
    pub async fn set_cart_item(
        &self,
        session: Option<CartSessionId>,
        product: ProductId,
        quantity: i64,
        command: Command<CartView>,
    ) -> Result<CartView, CommandError> {
        let session = session.ok_or(CommandError::CartNotFound)?;
        within(command.deadline, self.parts.carts.set(session, product, quantity, command)).await
    }

    /// Ends a cart; its units are back in stock when this returns. Nothing happens when the session is not open.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn clear_cart(&self, session: Option<CartSessionId>, command: Command<()>) -> Result<(), CommandError> {
        match session {
            Some(session) => within(command.deadline, self.parts.carts.clear(session, command)).await,
            None => Ok(()),
        }
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
        within(command.deadline, self.parts.orders.checkout(request, command)).await
    }

    /// Changes the status of an order; a cancelled order's units are back in stock when this returns.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn change_order(
        &self,
        transition: OrderTransition,
        command: Command<Order>,
    ) -> Result<Arc<Order>, CommandError> {
        within(command.deadline, self.parts.orders.change(transition, command)).await
    }

    /// Changes stock by hand.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn change_stock(
        &self,
        request: StockRequest,
        command: Command<StockView>,
    ) -> Result<StockView, CommandError> {
        within(command.deadline, stock_change::change(&self.parts.inventories, request, None, command)).await
    }

    /// A stock record as its actor knows it.
    ///
    /// # Errors
    /// [`CommandError::InventoryNotFound`]; or that the actor could not say by `deadline`.
    pub async fn stock(&self, inventory: InventoryId, deadline: Instant) -> Result<StockView, CommandError> {
        read_within(deadline, self.parts.inventories.read(inventory, deadline)).await
    }

    /// What can be sold of an inventory now, as its actor knows it.
    ///
    /// # Errors
    /// As of [`stock`](Self::stock).
    pub async fn available(&self, inventory: InventoryId, deadline: Instant) -> Result<i64, CommandError> {
        Ok(self.stock(inventory, deadline).await?.available)
    }

    /// A product, from the catalogue's memory where it is there.
    ///
    /// # Errors
    /// That the database could not say.
    pub async fn product(&self, id: ProductId) -> Result<Option<Arc<Product>>, CommandError> {
        if let Some(product) = self.parts.catalogue.kept(id) {
            return Ok(Some(product));
        }
        let catalogue = Arc::clone(&self.parts.catalogue);
        let read = self.parts.runtime.spawn(async move { catalogue.product(id).await });
        let died = |_| CommandError::ActorDied { applied: AppliedOutcome::No };
        Ok(read.await.map_err(died)??)
    }

    /// A product has been changed: it is read anew by the next who asks.
    pub fn product_changed(&self, id: ProductId) {
        self.parts.catalogue.changed(id);
    }

    /// A mail was kept as queued: the mailer is to look.
    pub fn mail_queued(&self) {
        self.parts.mailer.wake();
    }

    /// The view of every mailbox.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.parts.roster
    }

    /// What goes wrong because a test says so.
    #[cfg(feature = "fault-injection")]
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.parts.faults
    }
}

/// Waits until the deadline; what has begun goes on after it all the same.
async fn within<T>(
    deadline: Instant,
    answer: impl Future<Output = Result<T, CommandError>> + Send,
) -> Result<T, CommandError> {
    let late = CommandError::Deadline { applied: AppliedOutcome::Unknown };
    // Boxed: what waits here is kilobytes, and would else be copied at each step from here up to the request's task.
    tokio::time::timeout_at(deadline.into(), Box::pin(answer)).await.unwrap_or(Err(late))
}

/// Waits until the deadline for something that changes nothing.
async fn read_within<T>(
    deadline: Instant,
    answer: impl Future<Output = Result<T, CommandError>> + Send,
) -> Result<T, CommandError> {
    let late = CommandError::Deadline { applied: AppliedOutcome::No };
    tokio::time::timeout_at(deadline.into(), answer).await.unwrap_or(Err(late))
}
