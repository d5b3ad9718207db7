//! `/inventories`: stock records, changes of stock by hand, and the ledger.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, web};
use serde::Serialize;
use uuid::Uuid;

use crate::actors::command::StockView;
use crate::actors::shop::StockRequest;
use crate::domain::ids::{CartSessionId, InventoryId, MovementId, OrderId, ProductId};
use crate::domain::stock::{Action, Reason};
use crate::domain::timestamp::Timestamp;
use crate::persistence::records::{Movement, NewInventory, StoredResponse};

use super::body::Body;
use super::caller::Caller;
use super::fields::Fields;
use super::idempotency::{self, Named};
use super::json;
use super::lists::{self, List};
use super::problem::{Code, Problem};
use super::products::SKU;
use super::rules::{Id, Integer, OneOf, Text};
use super::state::State;
use super::{Answer, location, path_id};

const REFERENCE: Text = Text::line(1, 255);
const ACTIONS: [(Action, &str); 2] = [(Action::In, "IN"), (Action::Out, "OUT")];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewInventoryDocument {
    id: InventoryId,
    quantity: i64,
}

/// A stock record. What is taken but not yet durable counts as held, so that `quantity` is `onHand - held`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InventoryDocument<'a> {
    id: InventoryId,
    product_id: ProductId,
    sku: &'a str,
    quantity: i64,
    on_hand: i64,
    held: i64,
    updated_at: Timestamp,
}

impl<'a> InventoryDocument<'a> {
    fn of(view: &'a StockView) -> Self {
        let StockView { inventory, available } = view;
        Self {
            id: inventory.id,
            product_id: inventory.product,
            sku: &inventory.sku,
            quantity: *available,
            on_hand: inventory.balance.on_hand,
            held: inventory.balance.on_hand - available,
            updated_at: inventory.updated_at,
        }
    }
}

#[derive(Serialize)]
struct DetailsDocument<'a> {
    #[serde(flatten)]
    inventory: InventoryDocument<'a>,
    histories: List<HistoryDocument<'a>>,
}

/// One row of the ledger; `last` and `new` quantity are what could be sold before and after it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HistoryDocument<'a> {
    id: MovementId,
    seq: i64,
    action_type: &'static str,
    reason: &'static str,
    quantity_changed: i64,
    last_quantity: i64,
    new_quantity: i64,
    on_hand_change: i64,
    held_change: i64,
    on_hand: i64,
    held: i64,
    cart_session_id: Option<CartSessionId>,
    order_id: Option<OrderId>,
    reference: Option<&'a str>,
    actor: &'a str,
    created_at: Timestamp,
}

impl<'a> HistoryDocument<'a> {
    fn of(row: &'a Movement) -> Self {
        let new_quantity = row.on_hand - row.held;
        Self {
            id: row.id,
            seq: row.seq,
            action_type: row.action.name(),
            reason: row.reason.name(),
            quantity_changed: row.units,
            last_quantity: new_quantity - row.change.available(),
            new_quantity,
            on_hand_change: row.change.on_hand,
            held_change: row.change.held,
            on_hand: row.on_hand,
            held: row.held,
            cart_session_id: row.cart,
            order_id: row.order,
            reference: row.reference.as_deref(),
            actor: &row.actor,
            created_at: row.at,
        }
    }
}

/// `POST /inventories`: makes the stock record of a product that has none.
pub(crate) async fn create(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let admin = Caller::admin(&state, &request).await?;
    let body = Body::read(&request, payload).await?;
    let mut fields = body.fields()?;
    let read = (
        fields.required("productId", Id::<ProductId>::new()),
        fields.required("sku", SKU),
        fields.optional("quantity", Integer::UNITS_OR_NONE),
    );
    let (product, sku, quantity) = fields.finish(read)?;
    let quantity = quantity.unwrap_or(0);
    let inventory = NewInventory {
        id: InventoryId(Uuid::now_v7()),
        product,
        sku,
        quantity,
        movement: MovementId(Uuid::now_v7()),
        actor: admin.user.to_string(),
        at: state.clock.now(),
    };
    let id = inventory.id;
    let shop = state.shop.clone();
    let made = state.write(|store| async move {
        let made = store.insert_inventory(&inventory).await;
        shop.product_changed(product);
        made
    });
    made.await?;
    let location = location(&request, &format!("/inventories/{id}"));
    Ok(json::created(&NewInventoryDocument { id, quantity }, location))
}

/// `GET /inventories/{id}`: as its actor knows it.
pub(crate) async fn show(state: State, request: HttpRequest) -> Answer {
    Caller::user(&state, &request).await?;
    let id: InventoryId = path_id(&request, "id").ok_or_else(unknown)?;
    let view = state.ask_shop(state.shop.stock(id, state.deadline())).await?;
    Ok(json::ok(&InventoryDocument::of(&view)))
}

/// `PUT /inventories/{id}`: stock comes in or goes out by hand.
pub(crate) async fn change(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let admin = Caller::admin(&state, &request).await?;
    let body = Body::read(&request, payload).await?;
    let reasons = Reason::GIVEN.map(|reason| (reason, reason.name()));
    let mut fields = body.fields()?;
    let read = (
        fields.required("quantity", Integer::UNITS),
        fields.required("actionType", OneOf(&ACTIONS)),
        fields.optional("reason", OneOf(&reasons)),
        fields.optional("reference", REFERENCE),
    );
    let (units, action, reason, reference) = fields.finish(read)?;
    let inventory: InventoryId = path_id(&request, "id").ok_or_else(unknown)?;
    let reason = reason.unwrap_or_else(|| Reason::default_for(action));
    let change = StockRequest { inventory, action, units, reason, reference };
    let named = Named::of(&state, &request, Some(&admin), None, body.bytes())?;
    idempotency::answer(&state, admin.actor(), named, Arc::new(shown), move |state, command| async move {
        state.shop.change_stock(change, command).await.map(|view| shown(&view))
    })
    .await
}

fn shown(view: &StockView) -> StoredResponse {
    json::stored(StatusCode::OK, &InventoryDocument::of(view))
}

/// `GET /inventories/{id}/details`: the record and its ledger, newest row first.
pub(crate) async fn details(state: State, request: HttpRequest) -> Answer {
    Caller::admin(&state, &request).await?;
    let mut fields = Fields::of_query(request.query_string());
    let page = lists::page(&mut fields);
    let page = fields.finish(page)?;
    let id: InventoryId = path_id(&request, "id").ok_or_else(unknown)?;
    let view = state.ask_shop(state.shop.stock(id, state.deadline())).await?;
    let rows = state.read(|store| async move { store.movements(id, &page).await }).await?;
    let histories = List::of(&rows, HistoryDocument::of);
    Ok(json::ok(&DetailsDocument { inventory: InventoryDocument::of(&view), histories }))
}

fn unknown() -> Problem {
    Problem::new(Code::InventoryNotFound, "there is no such inventory")
}

#[cfg(test)]
mod tests {
    use crate::domain::stock::{Balance, Change};
    use crate::persistence::records::Inventory;

    use super::*;

    #[test]
    fn what_is_taken_but_not_durable_counts_as_held() {
        let inventory = Inventory {
            id: InventoryId(Uuid::from_u128(1)),
            product: ProductId(Uuid::from_u128(2)),
            sku: "TEA-1".to_owned(),
            balance: Balance { on_hand: 10, held: 3, seq: 4 },
            updated_at: Timestamp(0),
        };
        let view = StockView { inventory, available: 5 };
        let document = InventoryDocument::of(&view);
        assert_eq!((document.quantity, document.on_hand, document.held), (5, 10, 5));
    }

    #[test]
    fn a_history_row_shows_what_could_be_sold_before_and_after() {
        let row = |change: Change, on_hand, held| Movement {
            id: MovementId(Uuid::from_u128(1)),
            seq: 2,
            action: Action::Out,
            reason: Reason::Hold,
            units: 3,
            change,
            on_hand,
            held,
            cart: None,
            order: None,
            reference: None,
            actor: "guest".to_owned(),
            at: Timestamp(0),
        };
        let hold = row(Change { on_hand: 0, held: 3 }, 10, 5);
        let document = HistoryDocument::of(&hold);
        assert_eq!((document.last_quantity, document.new_quantity), (8, 5));
        let sale = row(Change { on_hand: -3, held: -3 }, 7, 2);
        let document = HistoryDocument::of(&sale);
        assert_eq!(
            (document.last_quantity, document.new_quantity),
            (5, 5),
            "what was held could not be sold before either"
        );
    }
}
