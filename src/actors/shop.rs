//! What the layer above may ask for. Every call goes to an actor, may be made from any thread or runtime, and
//! is done to its end whether or not the caller stays.

use std::sync::Arc;

use crate::domain::cart::Limits;
use crate::domain::ids::{CartSessionId, InventoryId, ProductId, UserId};
use crate::domain::money::{Currency, Money, TaxRate};
use crate::domain::product::Product;
use crate::domain::stock::{Action, Reason};
use crate::persistence::records::Order;

use super::command::{CartView, CheckedOut, Command, CommandError, OrderTransition, StockView};

/// The rules of this shop.
#[derive(Debug, Clone, Copy)]
pub struct ShopRules {
    /// The currency of all its prices.
    pub currency: Currency,
    /// The tax on an order's subtotal.
    pub tax: TaxRate,
    /// How long carts live.
    pub lifetime: crate::domain::cart::Lifetime,
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
}

impl Shop {
    /// The rules of this shop.
    #[must_use]
    pub fn rules(&self) -> &ShopRules {
        &self.rules
    }

    /// Puts units of a product into a cart and holds them. `sees_drafts`: the caller is an admin. A session that is
    /// not open gives a new cart.
    pub async fn add_to_cart(
        &self,
        session: Option<CartSessionId>,
        product: ProductId,
        inventory: Option<InventoryId>,
        quantity: i64,
        sees_drafts: bool,
        command: Command<CartView>,
    ) -> Result<CartView, CommandError> {
        todo!()
    }

    /// A cart as it is now; an empty one when the session is not open.
    pub async fn cart(&self, session: Option<CartSessionId>) -> Result<CartView, CommandError> {
        todo!()
    }

    /// Sets how many units of a product a cart holds; 0 removes its line.
    pub async fn set_cart_item(
        &self,
        session: Option<CartSessionId>,
        product: ProductId,
        quantity: i64,
        command: Command<CartView>,
    ) -> Result<CartView, CommandError> {
        todo!()
    }

    /// Ends a cart; its units are back in stock when this returns. Nothing happens when the session is not open.
    pub async fn clear_cart(&self, session: Option<CartSessionId>, command: Command<()>) -> Result<(), CommandError> {
        todo!()
    }

    /// Makes an order of a cart.
    pub async fn checkout(
        &self,
        request: CheckoutRequest,
        command: Command<Order>,
    ) -> Result<CheckedOut, CommandError> {
        todo!()
    }

    /// Changes the status of an order; a cancelled order's units are back in stock when this returns.
    pub async fn change_order(
        &self,
        transition: OrderTransition,
        command: Command<Order>,
    ) -> Result<Arc<Order>, CommandError> {
        todo!()
    }

    /// Changes stock by hand.
    pub async fn change_stock(
        &self,
        request: StockRequest,
        command: Command<StockView>,
    ) -> Result<StockView, CommandError> {
        todo!()
    }

    /// A stock record as its actor knows it.
    pub async fn stock(&self, inventory: InventoryId) -> Result<StockView, CommandError> {
        todo!()
    }

    /// What can be sold of an inventory now, as its actor knows it.
    pub async fn available(&self, inventory: InventoryId) -> Result<i64, CommandError> {
        todo!()
    }

    /// A product, from the catalogue's cache.
    pub async fn product(&self, id: ProductId) -> Result<Option<Arc<Product>>, CommandError> {
        todo!()
    }

    /// A product has been changed: the cache is to read it anew.
    pub fn product_changed(&self, id: ProductId) {
        todo!()
    }

    /// A mail was kept as queued: the mailer is to look.
    pub fn mail_queued(&self) {
        todo!()
    }
}
