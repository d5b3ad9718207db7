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
use super::inventories::Inventories;
use super::mailer::MailerHandle;
use super::orders::OrdersHandle;
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

/// The shop's actors, as one thing to ask. Clones ask the same actors.
#[derive(Clone)]
pub struct Shop {
    rules: ShopRules,
    runtime: Handle,
    catalogue: Arc<Catalogue>,
    carts: Carts,
    inventories: Inventories,
    orders: OrdersHandle,
    mailer: MailerHandle,
}

impl Shop {
    pub(super) fn new(
        rules: ShopRules,
        runtime: Handle,
        catalogue: Arc<Catalogue>,
        carts: Carts,
        inventories: Inventories,
        orders: OrdersHandle,
        mailer: MailerHandle,
    ) -> Self {
        Self { rules, runtime, catalogue, carts, inventories, orders, mailer }
    }

    /// The rules of this shop.
    #[must_use]
    pub fn rules(&self) -> &ShopRules {
        &self.rules
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
                match self.carts.add(session, Arc::clone(&product), quantity, command.clone()).await {
                    Err(CommandError::CartNotFound) => {}
                    answer => return answer,
                }
            }
            self.carts.open(product, quantity, command).await
        })
        .await
    }

    /// A cart as it is now; an empty one when the session is not open.
    ///
    /// # Errors
    /// That the cart could not say.
    pub async fn cart(&self, session: Option<CartSessionId>) -> Result<CartView, CommandError> {
        match session {
            Some(session) => self.carts.read(session).await,
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
        within(command.deadline, self.carts.set(session, product, quantity, command)).await
    }

    /// Ends a cart; its units are back in stock when this returns. Nothing happens when the session is not open.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn clear_cart(&self, session: Option<CartSessionId>, command: Command<()>) -> Result<(), CommandError> {
        match session {
            Some(session) => within(command.deadline, self.carts.clear(session, command)).await,
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
        within(command.deadline, self.orders.checkout(request, command)).await
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
        within(command.deadline, self.orders.change(transition, command)).await
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
        within(command.deadline, stock_change::change(&self.inventories, request, None, command)).await
    }

    /// A stock record as its actor knows it.
    ///
    /// # Errors
    /// [`CommandError::InventoryNotFound`]; or that the actor could not say.
    pub async fn stock(&self, inventory: InventoryId) -> Result<StockView, CommandError> {
        self.inventories.read(inventory).await
    }

    /// What can be sold of an inventory now, as its actor knows it.
    ///
    /// # Errors
    /// As of [`stock`](Self::stock).
    pub async fn available(&self, inventory: InventoryId) -> Result<i64, CommandError> {
        Ok(self.stock(inventory).await?.available)
    }

    /// A product, from the catalogue's memory where it is there.
    ///
    /// # Errors
    /// That the database could not say.
    pub async fn product(&self, id: ProductId) -> Result<Option<Arc<Product>>, CommandError> {
        if let Some(product) = self.catalogue.kept(id) {
            return Ok(Some(product));
        }
        let catalogue = Arc::clone(&self.catalogue);
        let read = self.runtime.spawn(async move { catalogue.product(id).await });
        let died = |_| CommandError::ActorDied { applied: AppliedOutcome::No };
        Ok(read.await.map_err(died)??)
    }

    /// A product has been changed: it is read anew by the next who asks.
    pub fn product_changed(&self, id: ProductId) {
        self.catalogue.changed(id);
    }

    /// A mail was kept as queued: the mailer is to look.
    pub fn mail_queued(&self) {
        self.mailer.wake();
    }

    /// Has an inventory's actor panic at its next change.
    #[cfg(feature = "fault-injection")]
    pub fn panic_at(&self, inventory: InventoryId, point: super::inventory::PanicPoint) {
        if let Some((mailbox, _)) = self.inventories.registry().find(inventory) {
            mailbox.tell(point);
        }
    }
}

/// Waits until the deadline; what has begun goes on after it all the same.
async fn within<T>(
    deadline: Instant,
    answer: impl Future<Output = Result<T, CommandError>> + Send,
) -> Result<T, CommandError> {
    let late = CommandError::Deadline { applied: AppliedOutcome::Unknown };
    tokio::time::timeout_at(deadline.into(), answer).await.unwrap_or(Err(late))
}
