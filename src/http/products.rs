//! `/products`: the catalogue.

use actix_web::{HttpRequest, web};
use serde::Serialize;
use uuid::Uuid;

use crate::domain::ids::{InventoryId, MovementId, ProductId};
use crate::domain::money::{Currency, Money};
use crate::domain::product::{Product, ProductStatus};
use crate::domain::timestamp::Timestamp;
use crate::messaging::documents::Amount;
use crate::persistence::records::{Listed, NewInventory, ProductChange, ProductFilter, ProductPatch, ProductSort};

use super::body::Body;
use super::caller::Caller;
use super::fields::Fields;
use super::json;
use super::lists::{self, List};
use super::problem::{Code, Problem};
use super::rules::{AmountOf, Integer, OneOf, Text};
use super::state::State;
use super::{Answer, location, path_id};

/// What a stock keeping unit may be.
pub(crate) const SKU: Text = Text::line(3, 64);
const NAME: Text = Text::line(3, 255);
const DESCRIPTION: Text = Text::lines(0, 1000);
const SEARCH: Text = Text::line(1, 255);

/// How lists are sorted: by what, and whether the largest comes first.
const SORTS: [((ProductSort, bool), &str); 6] = [
    ((ProductSort::Name, false), "name"),
    ((ProductSort::Name, true), "-name"),
    ((ProductSort::Price, false), "price"),
    ((ProductSort::Price, true), "-price"),
    ((ProductSort::CreatedAt, false), "createdAt"),
    ((ProductSort::CreatedAt, true), "-createdAt"),
];

/// A product in a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProductSummary<'a> {
    id: ProductId,
    sku: &'a str,
    name: &'a str,
    price: Amount,
    currency: &'static str,
    inventory_id: Option<InventoryId>,
    status: &'static str,
}

/// A product by itself.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProductDocument<'a> {
    #[serde(flatten)]
    summary: ProductSummary<'a>,
    description: Option<&'a str>,
    stock: i64,
    stock_status: &'static str,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl<'a> ProductSummary<'a> {
    fn of(product: &'a Product, currency: Currency) -> Self {
        Self {
            id: product.id,
            sku: &product.sku,
            name: &product.name,
            price: Amount::of(currency, product.price),
            currency: currency.code(),
            inventory_id: product.inventory,
            status: product.status.name(),
        }
    }
}

impl<'a> ProductDocument<'a> {
    fn of(product: &'a Product, stock: i64, currency: Currency) -> Self {
        Self {
            summary: ProductSummary::of(product, currency),
            description: product.description.as_deref(),
            stock,
            stock_status: if stock > 0 { "In stock" } else { "Out of stock" },
            created_at: product.created_at,
            updated_at: product.updated_at,
        }
    }
}

/// `GET /products`. Everybody but an administrator sees what is published only.
pub(crate) async fn list(state: State, request: HttpRequest) -> Answer {
    let caller = Caller::optional(&state, &request).await?;
    let mut fields = Fields::of_query(request.query_string());
    let read = (
        lists::page(&mut fields),
        fields.optional("q", SEARCH),
        fields.optional("status", OneOf(&ProductStatus::NAMES)),
        fields.optional("sort", OneOf(&SORTS)),
    );
    let (page, text, status, sort) = fields.finish(read)?;
    let (sort, descending) = sort.unwrap_or((ProductSort::CreatedAt, true));
    let sees_all = caller.as_ref().is_some_and(Caller::is_admin);
    let listed = if sees_all || status.is_none_or(|status| status == ProductStatus::Published) {
        let status = if sees_all { status } else { Some(ProductStatus::Published) };
        let filter = ProductFilter { text, status, sort, descending };
        state.read(|store| async move { store.list_products(&filter, &page).await }).await?
    } else {
        Listed { rows: Vec::new(), next: None }
    };
    let currency = state.currency();
    Ok(json::ok(&List::of(&listed, |product| ProductSummary::of(product, currency))))
}

/// `GET /products/{id}`. A draft is there for administrators only.
pub(crate) async fn show(state: State, request: HttpRequest) -> Answer {
    let caller = Caller::optional(&state, &request).await?;
    let id: ProductId = path_id(&request, "id").ok_or_else(unknown)?;
    let sees_drafts = caller.as_ref().is_some_and(Caller::is_admin);
    let product = state.ask_shop(state.shop.product(id)).await?;
    let product =
        product.filter(|product| sees_drafts || product.status != ProductStatus::Draft).ok_or_else(unknown)?;
    with_stock(&state, &product).await
}

/// `POST /products`: with `quantity`, its stock record is made with it.
pub(crate) async fn create(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    let admin = Caller::admin(&state, &request).await?;
    let body = Body::read(&request, payload).await?;
    let mut fields = body.fields()?;
    let read = (
        fields.required("sku", SKU),
        fields.required("name", NAME),
        fields.optional("description", DESCRIPTION),
        fields.optional("price", AmountOf(state.currency())),
        fields.optional("status", OneOf(&ProductStatus::NAMES)),
        fields.optional("quantity", Integer::UNITS_OR_NONE),
    );
    let (sku, name, description, price, status, quantity) = fields.finish(read)?;
    let now = state.clock.now();
    let id = ProductId(Uuid::now_v7());
    let inventory = quantity.map(|quantity| NewInventory {
        id: InventoryId(Uuid::now_v7()),
        product: id,
        sku: sku.clone(),
        quantity,
        movement: MovementId(Uuid::now_v7()),
        actor: admin.user.to_string(),
        at: now,
    });
    let product = Product {
        id,
        sku,
        name,
        description,
        price: price.unwrap_or(Money::ZERO),
        status: status.unwrap_or(ProductStatus::Draft),
        inventory: inventory.as_ref().map(|inventory| inventory.id),
        version: 1,
        created_at: now,
        updated_at: now,
    };
    let document = ProductDocument::of(&product, quantity.unwrap_or(0), state.currency());
    let answer = json::created(&document, location(&request, &format!("/products/{id}")));
    state.write(|store| async move { store.insert_product(&product, inventory.as_ref()).await }).await?;
    Ok(answer)
}

/// `PUT /products/{id}`: changes what the body names.
pub(crate) async fn change(state: State, request: HttpRequest, payload: web::Payload) -> Answer {
    Caller::admin(&state, &request).await?;
    let body = Body::read(&request, payload).await?;
    let mut fields = body.fields()?;
    let read = (
        fields.optional("name", NAME),
        fields.removable("description", DESCRIPTION),
        fields.optional("price", AmountOf(state.currency())),
        fields.optional("status", OneOf(&ProductStatus::NAMES)),
    );
    let (name, description, price, status) = fields.finish(read)?;
    let id: ProductId = path_id(&request, "id").ok_or_else(unknown)?;
    let patch = ProductPatch { name, description, price, status };
    let now = state.clock.now();
    let shop = state.shop.clone();
    let change = state.write(|store| async move {
        let change = store.patch_product(id, &patch, None, now).await;
        shop.product_changed(id);
        change
    });
    match change.await? {
        ProductChange::Changed(product) => with_stock(&state, &product).await,
        ProductChange::NotFound | ProductChange::Stale => Err(unknown()),
    }
}

async fn with_stock(state: &State, product: &Product) -> Answer {
    let stock = match product.inventory {
        Some(inventory) => state.ask_shop(state.shop.available(inventory, state.deadline())).await?,
        None => 0,
    };
    Ok(json::ok(&ProductDocument::of(product, stock, state.currency())))
}

fn unknown() -> Problem {
    Problem::new(Code::ProductNotFound, "there is no such product")
}
