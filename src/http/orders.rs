//! `/orders`: checkout, and what becomes of orders.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, web};

use crate::actors::command::{CheckedOut, CommandError, OrderTransition};
use crate::actors::shop::{Buyer, CheckoutRequest};
use crate::domain::ids::{CartSessionId, OrderId, UserId};
use crate::domain::order::OrderStatus;
use crate::messaging::documents::OrderDocument;
use crate::persistence::records::{Order, OrderFilter, StoredResponse};

use super::body::Body;
use super::caller::Caller;
use super::cart::SESSION_HEADER;
use super::fields::Fields;
use super::idempotency::{self, Named, Render};
use super::json;
use super::lists::{self, List};
use super::problem::{Code, Problem};
use super::rules::{AmountOf, Id, OneOf, ShippingAddress, Text};
use super::state::State;
use super::{Answer, location, path_id};

/// Characters of a cart session's id in a body; one of ours has 64, others are simply unknown.
const SESSION_CHARACTERS_MAX: usize = 1000;
/// Characters of a payment's name.
const PAYMENT_REFERENCE_MAX: usize = 255;

fn unknown() -> Problem {
    Problem::new(Code::OrderNotFound, "there is no such order")
}

fn shown(order: &Order) -> StoredResponse {
    json::stored(StatusCode::OK, &OrderDocument::of(order))
}

fn placed(order: &Order, location: &str) -> StoredResponse {
    StoredResponse {
        headers: vec![("Location".to_owned(), format!("{location}/{}", order.id))],
        ..json::stored(StatusCode::CREATED, &OrderDocument::of(order))
    }
}

/// What a checkout's body says.
struct CheckoutBody {
    session: Option<CartSessionId>,
    request: CheckoutRequest,
}

/// `POST /orders/checkout`: makes an order of a cart.
pub(crate) async fn checkout(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let caller = Caller::user(&state, &request).await?;
    let body = Body::read(&request, payload).await?;
    let CheckoutBody { session, request: checkout } = read_checkout(&state, &request, &caller, &body)?;
    let named = Named::of(&state, &request, Some(&caller), session, body.bytes())?;
    let orders = location(&request, "/orders");
    let render: Render<Order> = Arc::new({
        let orders = orders.clone();
        move |order| placed(order, &orders)
    });
    idempotency::answer(&state, caller.actor(), named, render, move |state, command| async move {
        let CheckedOut { order, placed: is_new } = state.shop.checkout(checkout, command).await?;
        Ok(if is_new { placed(&order, &orders) } else { shown(&order) })
    })
    .await
}

fn read_checkout(state: &State, request: &HttpRequest, caller: &Caller, body: &Body) -> Result<CheckoutBody, Problem> {
    let header = request.headers().get(SESSION_HEADER);
    let in_header = header.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let mut fields = body.fields_if_any()?;
    let in_body = fields.optional("cartSessionId", Text::line(1, SESSION_CHARACTERS_MAX));
    if in_body == Some(None) && in_header.is_none() {
        fields.refuse(
            "cartSessionId",
            format!("is missing; it must be the cart's id, here or in the header {SESSION_HEADER}"),
        );
    }
    let read = (
        in_body,
        fields.optional("shippingAddress", ShippingAddress),
        fields.optional("expectedTotal", AmountOf(state.currency())),
    );
    let (in_body, shipping_address, expected_total) = fields.finish(read)?;
    let text = in_body.or(in_header.clone()).unwrap_or_default();
    let session = text.parse().map_err(|_| state.refused(CommandError::CartEmpty))?;
    let buyer = Buyer { user: caller.user, name: caller.name.to_string(), email: caller.email.to_string() };
    Ok(CheckoutBody {
        session: in_header.and_then(|text| text.parse().ok()),
        request: CheckoutRequest { session, buyer, shipping_address, expected_total },
    })
}

/// `GET /orders`: one's own; an administrator sees all, or those of `?userId=`.
pub(crate) async fn list(state: State, request: HttpRequest) -> Answer {
    let caller = Caller::user(&state, &request).await?;
    let mut fields = Fields::of_query(request.query_string());
    let read = (
        lists::page(&mut fields),
        fields.optional("status", OneOf(&OrderStatus::NAMES)),
        fields.optional("userId", Id::<UserId>::new()),
    );
    let (page, status, asked_for) = fields.finish(read)?;
    let user = if caller.is_admin() { asked_for } else { Some(caller.user) };
    let filter = OrderFilter { user, status };
    let listed = state.read(|store| async move { store.list_orders(&filter, &page).await }).await?;
    Ok(json::ok(&List::of(&listed, OrderDocument::of)))
}

/// `GET /orders/{id}`.
pub(crate) async fn show(state: State, request: HttpRequest) -> Answer {
    let caller = Caller::user(&state, &request).await?;
    let order = visible(&state, &request, &caller).await?;
    Ok(json::ok(&OrderDocument::of(&order)))
}

/// The order that the path names, when the caller may see it.
async fn visible(state: &State, request: &HttpRequest, caller: &Caller) -> Result<Order, Problem> {
    let id: OrderId = path_id(request, "id").ok_or_else(unknown)?;
    let order = state.read(|store| async move { store.order(id).await }).await?;
    order.filter(|order| caller.is_admin() || order.user == caller.user).ok_or_else(unknown)
}

/// `POST /orders/{id}/cancel`: by the buyer or an administrator.
pub(crate) async fn cancel(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let caller = Caller::user(&state, &request).await?;
    let body = Body::read(&request, payload).await?;
    let order = visible(&state, &request, &caller).await?.id;
    let transition = OrderTransition { order, to: OrderStatus::Cancelled, payment_reference: None };
    change(&state, &request, &caller, &body, transition).await
}

/// `PUT /orders/{id}/status`: moves an order on.
pub(crate) async fn set_status(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let caller = Caller::admin(&state, &request).await?;
    let body = Body::read(&request, payload).await?;
    let mut fields = body.fields()?;
    let read = (
        fields.required("status", OneOf(&OrderStatus::NAMES)),
        fields.optional("paymentReference", Text::line(1, PAYMENT_REFERENCE_MAX)),
    );
    let (to, payment_reference) = fields.finish(read)?;
    let order = path_id(&request, "id").ok_or_else(unknown)?;
    let payment_reference = payment_reference.filter(|_| to == OrderStatus::Confirmed);
    change(&state, &request, &caller, &body, OrderTransition { order, to, payment_reference }).await
}

async fn change(
    state: &State,
    request: &HttpRequest,
    caller: &Caller,
    body: &Body,
    transition: OrderTransition,
) -> Answer {
    let named = Named::of(state, request, Some(caller), None, body.bytes())?;
    idempotency::answer(state, caller.actor(), named, Arc::new(shown), move |state, command| async move {
        state.shop.change_order(transition, command).await.map(|order| shown(&order))
    })
    .await
}
