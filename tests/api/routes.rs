//! Every route of the contract with what it takes: the table that [`bad_input`](crate::bad_input) and
//! [`protocol`](crate::protocol) go through.

use reqwest::Method;
use serde_json::{Value, json};

use crate::app::{Ask, Buyer, Product, TestApp};

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Anybody,
    User,
    Admin,
}

/// What a field must be; each kind has its own bad values.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Characters, from and to, of one line.
    Line(usize, usize),
    /// Characters, from and to, of any number of lines.
    Lines(usize, usize),
    /// A password, code or token of so many characters.
    Secret(usize, usize),
    /// A whole number, from and to.
    Integer(i64, i64),
    Money,
    Name,
    Id,
    Email,
    Sender,
    /// A text of 1 to 1000 characters or an object.
    Address,
    /// A cart's session: of another form it is simply unknown.
    Session,
}

/// A member of a body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
}

/// A route.
pub(crate) struct Route {
    pub method: Method,
    pub path: String,
    pub who: Who,
    /// A body that would be taken; `None` where none is needed.
    pub body: Option<Value>,
    pub fields: Vec<Field>,
    /// Parameters of the query string with bad values for each.
    pub query: Vec<(&'static str, &'static [&'static str])>,
    /// The code when the id in the path is unknown, and where in the path it is.
    pub unknown: Option<(String, &'static str)>,
}

/// A shop with one of everything, and the routes to it.
pub(crate) struct Shop {
    pub app: TestApp,
    pub buyer: Buyer,
    pub product: Product,
    pub session: String,
    pub order: String,
    pub profile: String,
}

const LIST: [(&str, &[&str]); 2] =
    [("limit", &["0", "-1", "101", "1.5", "9223372036854775808", "x", ""]), ("cursor", &["", "nonsense"])];
const STATUS: (&str, &[&str]) = ("status", &["", "NONE", "pending"]);

fn required(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: true }
}

fn optional(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: false }
}

impl Shop {
    pub(crate) async fn start() -> Self {
        let app = TestApp::start().await;
        let buyer = app.buyer("ann").await;
        let product = app.product("TEA-1", json!(2.5), 100).await;
        let session = app.cart(&product, 2).await;
        let order = app.order(&buyer, &product, 3).await;
        let profile = app.get(&format!("/users/{}?field=authUserId", buyer.id)).token(&buyer.token).send().await;
        let profile = profile.expect(200).text_at("id");
        Self { app, buyer, product, session, order, profile }
    }

    /// A request to a route, signed in as it asks for.
    pub(crate) fn ask(&self, route: &Route, path: &str) -> Ask {
        let ask = self.app.ask(route.method.clone(), path).session(&self.session);
        if let Some(token) = self.token(route) { ask.token(token) } else { ask }
    }

    /// The token of somebody who may ask for a route.
    pub(crate) fn token(&self, route: &Route) -> Option<&str> {
        match route.who {
            Who::Anybody => None,
            Who::User => Some(&self.buyer.token),
            Who::Admin => Some(&self.app.admin),
        }
    }

    /// Whether the whole shop looks as it did.
    pub(crate) async fn is_as_it_was(&self, before: Vec<(String, Value)>) {
        for ((path, now), (_, before)) in self.everything().await.into_iter().zip(before) {
            assert_eq!(now, before, "{path}");
        }
    }

    /// What can be seen of the whole shop, by path.
    pub(crate) async fn everything(&self) -> Vec<(String, Value)> {
        let mut seen = Vec::new();
        for path in [
            "/products?limit=100".to_owned(),
            format!("/products/{}", self.product.id),
            format!("/inventories/{}/details?limit=100", self.product.inventory),
            "/cart/me".to_owned(),
            "/orders?limit=100".to_owned(),
            "/emails?limit=100".to_owned(),
            format!("/users/{}", self.profile),
        ] {
            let ask = self.app.get(&path).token(&self.app.admin).session(&self.session);
            let mut body = ask.send().await.expect(200).body;
            // The confirmation of the order is written in its own time.
            if path.starts_with("/emails")
                && let Some(mails) = body["data"].as_array_mut()
            {
                mails.retain(|mail| mail["source"] != "orders");
            }
            seen.push((path, body));
        }
        seen
    }

    /// All routes but `/health`.
    pub(crate) fn routes(&self) -> Vec<Route> {
        let mut routes = auth_routes();
        routes.extend(self.catalogue_routes());
        routes.extend(self.cart_and_order_routes());
        routes.extend(self.mail_and_user_routes());
        routes.extend(self.admin_routes());
        routes
    }

    fn catalogue_routes(&self) -> Vec<Route> {
        let (product, inventory) = (&self.product.id, &self.product.inventory);
        let fields = [
            optional("description", Kind::Lines(0, 1000)),
            optional("price", Kind::Money),
            optional("status", Kind::Name),
        ];
        let sort: (&str, &[&str]) = ("sort", &["", "price,name", "sku"]);
        vec![
            route(Method::GET, "/products", Who::Anybody).query(LIST.into_iter().chain([sort, STATUS, ("q", &[""])])),
            route(Method::POST, "/products", Who::Admin)
                .body(json!({"sku": "NEW-1", "name": "New", "description": "x", "price": 1.5, "status": "DRAFT", "quantity": 1}))
                .fields([required("sku", Kind::Line(3, 64)), required("name", Kind::Line(3, 255)), optional("quantity", Kind::Integer(0, 1_000_000))])
                .fields(fields),
            route(Method::GET, &format!("/products/{product}"), Who::Anybody).unknown(product, "product_not_found"),
            route(Method::PUT, &format!("/products/{product}"), Who::Admin)
                .body(json!({"name": "Changed", "description": "x", "price": 1.5, "status": "DRAFT"}))
                .fields([optional("name", Kind::Line(3, 255))])
                .fields(fields)
                .unknown(product, "product_not_found"),
            route(Method::POST, "/inventories", Who::Admin)
                .body(json!({"productId": product, "sku": "TEA-1", "quantity": 1}))
                .fields([required("productId", Kind::Id), required("sku", Kind::Line(3, 64)), optional("quantity", Kind::Integer(0, 1_000_000))]),
            route(Method::GET, &format!("/inventories/{inventory}"), Who::User).unknown(inventory, "inventory_not_found"),
            route(Method::PUT, &format!("/inventories/{inventory}"), Who::Admin)
                .body(json!({"quantity": 1, "actionType": "IN", "reason": "count", "reference": "x"}))
                .fields([
                    required("quantity", Kind::Integer(1, 1_000_000)),
                    required("actionType", Kind::Name),
                    optional("reason", Kind::Name),
                    optional("reference", Kind::Line(1, 255)),
                ])
                .unknown(inventory, "inventory_not_found"),
            route(Method::GET, &format!("/inventories/{inventory}/details"), Who::Admin)
                .query(LIST)
                .unknown(inventory, "inventory_not_found"),
        ]
    }

    fn cart_and_order_routes(&self) -> Vec<Route> {
        let (product, order) = (&self.product.id, &self.order);
        vec![
            route(Method::POST, "/cart/add-to-cart", Who::Anybody)
                .body(json!({"productId": product, "inventoryId": self.product.inventory, "quantity": 1}))
                .fields([
                    required("productId", Kind::Id),
                    optional("inventoryId", Kind::Id),
                    required("quantity", Kind::Integer(1, 1_000_000)),
                ]),
            route(Method::GET, "/cart/me", Who::Anybody),
            route(Method::PUT, &format!("/cart/items/{product}"), Who::Anybody)
                .body(json!({"quantity": 1}))
                .fields([required("quantity", Kind::Integer(0, 1_000_000))])
                .unknown(product, "item_not_found"),
            route(Method::DELETE, &format!("/cart/items/{product}"), Who::Anybody).unknown(product, "item_not_found"),
            route(Method::GET, "/cart/clear", Who::Anybody),
            route(Method::DELETE, "/cart", Who::Anybody),
            route(Method::POST, "/orders/checkout", Who::User)
                .body(json!({"cartSessionId": self.session, "shippingAddress": "1 Way", "expectedTotal": 5}))
                .fields([
                    optional("cartSessionId", Kind::Session),
                    optional("shippingAddress", Kind::Address),
                    optional("expectedTotal", Kind::Money),
                ]),
            route(Method::GET, "/orders", Who::User).query(LIST.into_iter().chain([STATUS, ("userId", &["", "17"])])),
            route(Method::GET, &format!("/orders/{order}"), Who::User).unknown(order, "order_not_found"),
            route(Method::POST, &format!("/orders/{order}/cancel"), Who::User).unknown(order, "order_not_found"),
            route(Method::PUT, &format!("/orders/{order}/status"), Who::Admin)
                .body(json!({"status": "CONFIRMED", "paymentReference": "x"}))
                .fields([required("status", Kind::Name), optional("paymentReference", Kind::Line(1, 255))])
                .unknown(order, "order_not_found"),
        ]
    }

    fn mail_and_user_routes(&self) -> Vec<Route> {
        let (profile, by): (_, (&str, &[&str])) = (&self.profile, ("field", &["", "email"]));
        let contact = [optional("address", Kind::Lines(1, 1000)), optional("phone", Kind::Line(1, 32))];
        vec![
            route(Method::POST, "/emails/send", Who::Admin)
                .body(json!({"recipient": "a@example.org", "subject": "x", "body": "x", "source": "x", "sender": "b@example.org"}))
                .fields([
                    required("recipient", Kind::Email),
                    required("subject", Kind::Line(1, 255)),
                    required("body", Kind::Lines(1, 100_000)),
                    required("source", Kind::Line(1, 64)),
                    optional("sender", Kind::Sender),
                ]),
            route(Method::GET, "/emails", Who::Admin)
                .query(LIST.into_iter().chain([STATUS, ("recipient", &["", "ann"]), ("source", &[""])])),
            route(Method::POST, "/users", Who::Admin)
                .body(json!({"authUserId": self.buyer.id, "name": "Ann", "email": "a@example.org", "address": "x", "phone": "x"}))
                .fields([required("authUserId", Kind::Id), required("name", Kind::Line(3, 255)), required("email", Kind::Email)])
                .fields(contact),
            route(Method::GET, &format!("/users/{profile}"), Who::User).query([by]).unknown(profile, "user_not_found"),
            route(Method::PATCH, &format!("/users/{profile}"), Who::User)
                .body(json!({"name": "Ann Lee", "address": "x", "phone": "x"}))
                .fields([optional("name", Kind::Line(3, 255))])
                .fields(contact)
                .unknown(profile, "user_not_found"),
            route(Method::PUT, &format!("/users/{profile}/role"), Who::Admin)
                .body(json!({"role": "USER"}))
                .fields([required("role", Kind::Name)])
                .unknown(profile, "user_not_found"),
            route(Method::PUT, &format!("/users/{profile}/status"), Who::Admin)
                .body(json!({"status": "ACTIVE"}))
                .fields([required("status", Kind::Name)])
                .unknown(profile, "user_not_found"),
        ]
    }

    fn admin_routes(&self) -> Vec<Route> {
        let inventory = &self.product.inventory;
        let actor = format!("/admin/actors/inventory/{inventory}");
        let kind: (&str, &[&str]) = ("kind", &["", "nobody", "Cart"]);
        let sort: (&str, &[&str]) = ("sort", &["", "depth", "name"]);
        vec![
            route(Method::GET, "/admin/actors", Who::Admin).query(LIST.into_iter().chain([kind, sort])),
            route(Method::GET, &actor, Who::Admin).unknown(inventory, "actor_not_found"),
            route(Method::POST, &format!("{actor}/restart"), Who::Admin).unknown(inventory, "actor_not_found"),
        ]
    }
}

fn auth_routes() -> Vec<Route> {
    let (email, code) = (required("email", Kind::Email), required("code", Kind::Secret(1, 64)));
    let password = required("password", Kind::Secret(8, 128));
    let token = |name| required(name, Kind::Secret(1, 4096));
    let post = |path: &str| route(Method::POST, path, Who::Anybody);
    vec![
        post("/auth/register")
            .body(json!({"email": "new@example.org", "password": "correct horse", "name": "New"}))
            .fields([email, password, required("name", Kind::Line(3, 255))]),
        post("/auth/verify-email").body(json!({"email": "ann@example.org", "code": "000000"})).fields([email, code]),
        post("/auth/resend-verification").body(json!({"email": "ann@example.org"})).fields([email]),
        post("/auth/login")
            .body(json!({"email": "ann@example.org", "password": "wrong horse"}))
            .fields([email, required("password", Kind::Secret(1, 128))]),
        post("/auth/verify-token").body(json!({"accessToken": "x"})).fields([token("accessToken")]),
        post("/auth/refresh").body(json!({"refreshToken": "x"})).fields([token("refreshToken")]),
        post("/auth/logout").body(json!({"refreshToken": "x"})).fields([token("refreshToken")]),
        post("/auth/forgot-password").body(json!({"email": "ann@example.org"})).fields([email]),
        post("/auth/reset-password")
            .body(json!({"email": "ann@example.org", "code": "000000", "password": "correct horse"}))
            .fields([email, code, password]),
    ]
}

fn route(method: Method, path: &str, who: Who) -> Route {
    let (fields, query) = (Vec::new(), Vec::new());
    Route { method, path: path.to_owned(), who, body: None, fields, query, unknown: None }
}

impl Route {
    fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    fn fields<const N: usize>(mut self, fields: [Field; N]) -> Self {
        self.fields.extend(fields);
        self
    }

    fn query(mut self, query: impl IntoIterator<Item = (&'static str, &'static [&'static str])>) -> Self {
        self.query.extend(query);
        self
    }

    fn unknown(mut self, id: &str, code: &'static str) -> Self {
        self.unknown = Some((id.to_owned(), code));
        self
    }

    /// Method and path, for messages.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}
