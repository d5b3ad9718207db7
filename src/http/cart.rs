//! `/cart`: a session's cart, known by the header `X-Cart-Session-Id`. No sign-in is needed.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpRequest, web};
use serde::Serialize;

use crate::actors::command::{CartView, CartViewLine};
use crate::domain::ids::{CartSessionId, InventoryId, ProductId};
use crate::domain::money::Currency;
use crate::domain::timestamp::Timestamp;
use crate::messaging::documents::Amount;
use crate::persistence::records::StoredResponse;

use super::body::Body;
use super::caller::Caller;
use super::idempotency::{self, Named, Render};
use super::json::{self, Message};
use super::problem::{Code, Problem};
use super::rules::{Id, Integer};
use super::state::{AppState, State};
use super::{Answer, path_id};

/// The header by which a cart is known.
pub(crate) const SESSION_HEADER: &str = "X-Cart-Session-Id";
const SESSION: HeaderName = HeaderName::from_static("x-cart-session-id");

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CartDocument<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    cart_session_id: Option<CartSessionId>,
    items: Vec<ItemDocument<'a>>,
    subtotal: Amount,
    currency: &'static str,
    expires_at: Option<Timestamp>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ItemDocument<'a> {
    product_id: ProductId,
    inventory_id: InventoryId,
    quantity: i64,
    sku: &'a str,
    name: &'a str,
    price: Amount,
    total: Amount,
}

impl<'a> ItemDocument<'a> {
    fn of(line: &'a CartViewLine, currency: Currency) -> Self {
        Self {
            product_id: line.product,
            inventory_id: line.inventory,
            quantity: line.quantity,
            sku: &line.sku,
            name: &line.name,
            price: Amount::of(currency, line.price),
            total: Amount::of(currency, line.total),
        }
    }
}

/// The answer that shows a cart. A cart that is not open goes by the id that the caller `sent`.
fn shown(
    view: &CartView,
    sent: Option<CartSessionId>,
    currency: Currency,
    message: Option<&'static str>,
) -> StoredResponse {
    let session = view.session.or(sent);
    let document = CartDocument {
        message,
        cart_session_id: session,
        items: view.lines.iter().map(|line| ItemDocument::of(line, currency)).collect(),
        subtotal: Amount::of(currency, view.subtotal),
        currency: currency.code(),
        expires_at: view.expires_at,
    };
    with_session(json::stored(StatusCode::OK, &document), session)
}

fn with_session(mut answer: StoredResponse, session: Option<CartSessionId>) -> StoredResponse {
    if let Some(session) = session {
        answer.headers.push((SESSION_HEADER.to_owned(), session.to_string()));
    }
    answer
}

/// The session that a request names; one of another form counts as none.
pub(crate) fn session_of(request: &HttpRequest) -> Option<CartSessionId> {
    request.headers().get(&SESSION)?.to_str().ok()?.parse().ok()
}

/// Refusals name the caller's session too.
fn keep_session(answer: Answer, session: Option<CartSessionId>) -> Answer {
    let value = session.and_then(|session| HeaderValue::from_str(&session.to_string()).ok());
    match (answer, value) {
        (Err(problem), Some(value)) => Err(problem.header(SESSION, value)),
        (answer, _) => answer,
    }
}

fn actor(state: &AppState, caller: Option<&Caller>) -> Arc<str> {
    caller.map_or_else(|| Arc::clone(&state.guest), Caller::actor)
}

/// `POST /cart/add-to-cart`: puts units into a cart and holds them.
pub(crate) async fn add(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let session = session_of(&request);
    keep_session(add_to(&state, &request, payload, session).await, session)
}

async fn add_to(state: &State, request: &HttpRequest, payload: web::Payload, session: Option<CartSessionId>) -> Answer {
    let caller = Caller::optional(state, request).await?;
    let body = Body::read(request, payload).await?;
    let mut fields = body.fields()?;
    let read = (
        fields.required("productId", Id::<ProductId>::new()),
        fields.optional("inventoryId", Id::<InventoryId>::new()),
        fields.required("quantity", Integer::UNITS),
    );
    let (product, inventory, quantity) = fields.finish(read)?;
    let named = Named::of(state, request, caller.as_ref(), session, body.bytes())?;
    let currency = state.currency();
    let render: Render<CartView> = Arc::new(move |view| shown(view, None, currency, Some("Added to the cart")));
    let live = Arc::clone(&render);
    let sees_drafts = caller.as_ref().is_some_and(Caller::is_admin);
    idempotency::answer(state, actor(state, caller.as_ref()), named, render, move |state, command| async move {
        let added = state.shop.add_to_cart(session, product, inventory, quantity, sees_drafts, command).await;
        added.map(|view| live(&view))
    })
    .await
}

/// `GET /cart/me`: the cart as it is now. Reading does not renew it.
pub(crate) async fn show(state: State, request: HttpRequest) -> Answer {
    let session = session_of(&request);
    let view = state.ask_shop(state.shop.cart(session, state.deadline())).await;
    keep_session(view.map(|view| json::send(shown(&view, session, state.currency(), None))), session)
}

/// `PUT /cart/items/{productId}`: sets how many units of a product the cart holds.
pub(crate) async fn set_item(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let session = session_of(&request);
    let quantity = async {
        let caller = Caller::optional(&state, &request).await?;
        let body = Body::read(&request, payload).await?;
        let mut fields = body.fields()?;
        let quantity = fields.required("quantity", Integer::UNITS_OR_NONE);
        let quantity = fields.finish(quantity)?;
        set(&state, &request, caller, session, &body, quantity).await
    };
    keep_session(quantity.await, session)
}

/// `DELETE /cart/items/{productId}`: takes a product out of the cart.
pub(crate) async fn remove_item(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let session = session_of(&request);
    let removed = async {
        let caller = Caller::optional(&state, &request).await?;
        let body = Body::read(&request, payload).await?;
        set(&state, &request, caller, session, &body, 0).await
    };
    keep_session(removed.await, session)
}

async fn set(
    state: &State,
    request: &HttpRequest,
    caller: Option<Caller>,
    session: Option<CartSessionId>,
    body: &Body,
    quantity: i64,
) -> Answer {
    let unknown = || Problem::new(Code::ItemNotFound, "the product is not in the cart");
    let product: ProductId = path_id(request, "productId").ok_or_else(unknown)?;
    let named = Named::of(state, request, caller.as_ref(), session, body.bytes())?;
    let currency = state.currency();
    let render: Render<CartView> = Arc::new(move |view| shown(view, session, currency, None));
    let live = Arc::clone(&render);
    idempotency::answer(state, actor(state, caller.as_ref()), named, render, move |state, command| async move {
        state.shop.set_cart_item(session, product, quantity, command).await.map(|view| live(&view))
    })
    .await
}

/// `DELETE /cart`, and `GET /cart/clear` for clients of the original system: ends the cart.
pub(crate) async fn clear(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let session = session_of(&request);
    let cleared = async {
        let caller = Caller::optional(&state, &request).await?;
        let body = Body::read(&request, payload).await?;
        let named = match request.method().is_safe() {
            true => None,
            false => Named::of(&state, &request, caller.as_ref(), session, body.bytes())?,
        };
        let document = Message { message: "Cart is empty" };
        let render: Render<()> = Arc::new(move |()| with_session(json::stored(StatusCode::OK, &document), session));
        let live = Arc::clone(&render);
        idempotency::answer(&state, actor(&state, caller.as_ref()), named, render, move |state, command| async move {
            state.shop.clear_cart(session, command).await.map(|()| live(&()))
        })
        .await
    };
    keep_session(cleared.await, session)
}

#[cfg(test)]
mod tests {
    use actix_web::HttpResponse;
    use actix_web::test::TestRequest;
    use uuid::Uuid;

    use crate::domain::ids::CartKey;
    use crate::domain::money::Money;

    use super::*;

    fn session() -> CartSessionId {
        CartSessionId { key: CartKey(Uuid::from_u128(1)), secret: [2; 16] }
    }

    fn usd() -> Currency {
        Currency::from_code("USD").expect("a currency")
    }

    #[test]
    fn a_malformed_session_counts_as_none() {
        let named =
            |value: &str| session_of(&TestRequest::get().insert_header((SESSION_HEADER, value)).to_http_request());
        assert_eq!(named(&session().to_string()), Some(session()));
        assert_eq!(named("abc"), None);
        assert_eq!(session_of(&TestRequest::get().to_http_request()), None);
    }

    #[test]
    fn a_cart_is_shown_as_the_contract_says() {
        let line = CartViewLine {
            product: ProductId(Uuid::from_u128(3)),
            inventory: InventoryId(Uuid::from_u128(4)),
            quantity: 2,
            sku: "TEA-1".to_owned(),
            name: "Tea".to_owned(),
            price: Money(1999),
            total: Money(3998),
        };
        let view = CartView {
            session: Some(session()),
            lines: vec![line],
            subtotal: Money(3998),
            expires_at: Some(Timestamp(1_795_339_800_000_000)),
        };
        let answer = shown(&view, None, usd(), None);
        let expected = format!(
            r#"{{"cartSessionId":"{}","items":[{{"productId":"{}","inventoryId":"{}","quantity":2,"sku":"TEA-1","name":"Tea","price":19.99,"total":39.98}}],"subtotal":39.98,"currency":"USD","expiresAt":"2026-11-22T09:30:00.000Z"}}"#,
            session(),
            Uuid::from_u128(3),
            Uuid::from_u128(4)
        );
        assert_eq!(answer.body, expected);
        assert_eq!(answer.headers, [(SESSION_HEADER.to_owned(), session().to_string())]);
    }

    #[test]
    fn no_cart_has_no_session_and_no_header() {
        let view = CartView { session: None, lines: Vec::new(), subtotal: Money::ZERO, expires_at: None };
        let answer = shown(&view, None, usd(), None);
        assert_eq!(
            answer.body,
            r#"{"cartSessionId":null,"items":[],"subtotal":0.00,"currency":"USD","expiresAt":null}"#
        );
        assert!(answer.headers.is_empty());
        let sent = shown(&view, Some(session()), usd(), None);
        assert_eq!(sent.headers.len(), 1);
    }

    #[test]
    fn refusals_name_the_session_too() {
        let refused = keep_session(Err(Problem::new(Code::CartNotFound, "x")), Some(session()));
        let response: HttpResponse = refused.expect_err("refused").response("r");
        assert_eq!(response.headers().get(SESSION).expect("the session"), session().to_string().as_str());
    }
}
