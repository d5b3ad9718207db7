//! Which problem a refusal of the layers below is. Every variant is written out: a new one does not compile until
//! it has its code here.

use serde::Serialize;

use crate::actors::command::{AppliedOutcome, CommandError};
use crate::actors::mailbox::Unposted;
use crate::domain::cart::{CartError, CartLine};
use crate::domain::ids::{InventoryId, ProductId};
use crate::domain::money::Currency;
use crate::messaging::documents::Amount;
use crate::persistence::StoreError;

use super::problem::{Code, Problem};

/// The problem that a command's error is. `currency` is the shop's, for amounts.
pub(crate) fn of_command(error: CommandError, currency: Currency) -> Problem {
    let text = error.to_string();
    match error {
        CommandError::ProductNotFound => Problem::new(Code::ProductNotFound, text),
        CommandError::InventoryNotFound => Problem::new(Code::InventoryNotFound, text),
        CommandError::InventoryMismatch { expected } => {
            Problem::new(Code::InventoryMismatch, text).with("inventoryId", &expected)
        }
        CommandError::InsufficientStock { available } => {
            Problem::new(Code::InsufficientStock, text).with("available", &available)
        }
        CommandError::StockOverflow => Problem::new(Code::QuantityOverflow, text),
        CommandError::TotalOverflow => Problem::new(Code::TotalOverflow, text),
        CommandError::Cart(refusal) => match refusal {
            CartError::TooManyLines { limit } => Problem::new(Code::HoldLimit, text).with("limit", &limit),
            CartError::TooManyUnits { limit } => Problem::new(Code::HoldLimit, text).with("limit", &limit),
            CartError::NotInCart => Problem::new(Code::ItemNotFound, text),
        },
        CommandError::CartNotFound => Problem::new(Code::CartNotFound, text),
        CommandError::CartEmpty => Problem::new(Code::CartEmpty, text),
        CommandError::HoldExpired { lines } => {
            let lines: Vec<_> = lines.iter().map(ExpiredLine::of).collect();
            Problem::new(Code::HoldExpired, text).with("lines", &lines)
        }
        CommandError::PriceChanged { grand_total } => Problem::new(Code::PriceChanged, text)
            .with("grandTotal", &Amount::of(currency, grand_total))
            .with("currency", &currency.code()),
        CommandError::CartOrdered => Problem::new(Code::CartOrdered, text),
        CommandError::OrderNotFound => Problem::new(Code::OrderNotFound, text),
        CommandError::InvalidTransition { from, to } => {
            Problem::new(Code::InvalidTransition, text).with("from", &from.name()).with("to", &to.name())
        }
        CommandError::KeyKnown => Problem::new(Code::InProgress, text),
        CommandError::MessageKnown => {
            tracing::error!("a message's refusal came to a request");
            Problem::internal(AppliedOutcome::No)
        }
        CommandError::Unwritable => {
            tracing::error!("{text}");
            Problem::internal(AppliedOutcome::No)
        }
        CommandError::Contended => Problem::new(Code::Contended, text).applied(AppliedOutcome::No),
        CommandError::Unposted(unposted) => {
            let code = match unposted {
                Unposted::Full => Code::Overloaded,
                Unposted::Restarting => Code::Restarting,
                Unposted::Quarantined { .. } => Code::Quarantined,
            };
            Problem::new(code, text).applied(AppliedOutcome::No)
        }
        CommandError::Deadline { applied } => Problem::new(Code::Timeout, text).applied(applied),
        CommandError::ActorDied { applied } => Problem::new(Code::Interrupted, text).applied(applied),
        CommandError::Store { applied, source } => of_store(&source).applied(applied),
    }
}

/// The problem that a store's error is.
pub(crate) fn of_store(error: &StoreError) -> Problem {
    match error {
        StoreError::Unavailable(source) => {
            tracing::error!(error = %source, "the database is not available");
            Problem::new(Code::Unavailable, error.to_string()).applied(AppliedOutcome::No)
        }
        StoreError::Unknown(source) => {
            tracing::error!(error = %source, "the outcome of a change is unknown");
            Problem::new(Code::Unavailable, error.to_string()).applied(AppliedOutcome::Unknown)
        }
        StoreError::Constraint(rule) => of_rule(rule),
        StoreError::Failed(source) => {
            tracing::error!(error = %source, "the database failed");
            Problem::internal(AppliedOutcome::No)
        }
        StoreError::Corrupt(what) => {
            tracing::error!(what, "what the database keeps can not be understood");
            Problem::internal(AppliedOutcome::No)
        }
        StoreError::InvalidCursor => Problem::field("cursor", "must be the nextCursor of an answer to this list"),
    }
}

/// The problem that a named rule of the database stands for.
fn of_rule(rule: &str) -> Problem {
    match rule {
        "users_email_unique" => Problem::new(Code::EmailTaken, "there is an account with this e-mail address"),
        "products_sku_unique" => Problem::new(Code::SkuTaken, "there is a product with this SKU"),
        "inventories_product_unique" => Problem::new(Code::InventoryExists, "the product has an inventory"),
        "inventories_product_exists" => Problem::new(Code::ProductNotFound, "there is no such product"),
        "profiles_user_unique" => Problem::new(Code::UserExists, "the user has a profile"),
        "last_admin" => Problem::new(Code::LastAdmin, "nobody would be left to run the shop"),
        other => {
            tracing::error!(rule = other, "a rule of the database has no answer");
            Problem::internal(AppliedOutcome::No)
        }
    }
}

/// A line that an expired cart had.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExpiredLine {
    product_id: ProductId,
    inventory_id: InventoryId,
    quantity: i64,
}

impl ExpiredLine {
    fn of(line: &CartLine) -> Self {
        Self { product_id: line.product, inventory_id: line.inventory, quantity: line.quantity }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use actix_web::body::MessageBody;
    use serde_json::Value;

    use crate::domain::cart::HoldState;
    use crate::domain::money::Money;
    use crate::domain::order::OrderStatus;

    use super::*;

    fn document(error: CommandError) -> Value {
        let currency = Currency::from_code("USD").expect("a currency");
        let bytes = of_command(error, currency).response("r").into_body().try_into_bytes().expect("a body");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    #[test]
    fn refusals_carry_what_the_contract_promises() {
        assert_eq!(document(CommandError::InsufficientStock { available: 7 })["available"], 7);
        let transition =
            document(CommandError::InvalidTransition { from: OrderStatus::Shipped, to: OrderStatus::Cancelled });
        assert_eq!((&transition["from"], &transition["to"]), (&Value::from("SHIPPED"), &Value::from("CANCELLED")));
        let line = CartLine {
            number: 1,
            product: ProductId(uuid::Uuid::from_u128(1)),
            inventory: InventoryId(uuid::Uuid::from_u128(2)),
            quantity: 3,
            state: HoldState::Expired,
        };
        let expired = document(CommandError::HoldExpired { lines: vec![line] });
        assert_eq!(expired["lines"][0]["quantity"], 3);
        assert_eq!(expired["lines"][0]["productId"], "00000000-0000-0000-0000-000000000001");
    }

    #[test]
    fn a_new_total_is_an_exact_number() {
        let currency = Currency::from_code("USD").expect("a currency");
        let error = CommandError::PriceChanged { grand_total: Money(900_719_925_474_099_301) };
        let bytes = of_command(error, currency).response("r").into_body().try_into_bytes().expect("a body");
        let text = std::str::from_utf8(&bytes).expect("text");
        assert!(text.contains(r#""grandTotal":9007199254740993.01,"currency":"USD""#), "{text}");
    }

    #[test]
    fn a_change_of_unknown_outcome_says_so() {
        let unknown = CommandError::from(StoreError::Unknown(sqlx::Error::PoolTimedOut));
        let document_of_unknown = document(unknown);
        assert_eq!(document_of_unknown["code"], "unavailable");
        assert_eq!(document_of_unknown["applied"], "unknown");
        let source = Arc::new(StoreError::Unavailable(sqlx::Error::PoolTimedOut));
        let certain = document(CommandError::Store { applied: AppliedOutcome::No, source });
        assert_eq!(certain["applied"], "no");
    }

    #[test]
    fn internals_are_not_sent() {
        let error = CommandError::from(StoreError::Corrupt("table users, column role".to_owned()));
        let text = document(error).to_string();
        assert!(text.contains(r#""code":"internal""#) && !text.contains("users"), "{text}");
    }
}
