//! The form of the news about stock, which only others read.

use serde::Serialize;

use crate::domain::ids::{InventoryId, ProductId};
use crate::domain::stock::Balance;

/// What is in stock: the message of [`super::STOCK_CHANGED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StockChangedDocument {
    /// Whose stock.
    pub inventory_id: InventoryId,
    /// The product.
    pub product_id: ProductId,
    /// What can be sold.
    pub quantity: i64,
    /// What is in the warehouse.
    pub on_hand: i64,
    /// What is set aside for open carts.
    pub held: i64,
    /// Number of the ledger row that led here; of two messages the one with the higher number is the newer.
    pub seq: i64,
}

impl StockChangedDocument {
    /// The document of a balance.
    #[must_use]
    pub fn of(inventory: InventoryId, product: ProductId, balance: Balance) -> Self {
        let Balance { on_hand, held, seq } = balance;
        Self { inventory_id: inventory, product_id: product, quantity: balance.available(), on_hand, held, seq }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_change_of_stock_says_what_can_be_sold() {
        let (inventory, product) = (InventoryId(Uuid::from_u128(7)), ProductId(Uuid::from_u128(8)));
        let document = StockChangedDocument::of(inventory, product, Balance { on_hand: 9, held: 2, seq: 5 });
        let value = serde_json::to_value(&document).expect("JSON");
        let wanted = json!({
            "inventoryId": inventory.0, "productId": product.0, "quantity": 7, "onHand": 9, "held": 2, "seq": 5
        });
        assert_eq!(value, wanted);
    }
}
