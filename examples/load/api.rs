//! What is asked of the shop's API before and after a load.

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::server::Server;

/// A product and its stock record.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) product: String,
    pub(crate) inventory: String,
    /// Units that it had at first.
    pub(crate) stock: i64,
}

/// The API, as its administrator.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
    base: String,
    token: String,
}

impl Api {
    /// Signs in.
    pub(crate) async fn sign_in(server: &Server) -> Self {
        let client = Client::builder().no_proxy().build().expect("a client");
        let mut api = Self { client, base: server.base().to_owned(), token: String::new() };
        api.token = api.token_of(server.admin_email(), server.admin_password()).await;
        api
    }

    /// The administrator's access token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    async fn token_of(&self, email: &str, password: &str) -> String {
        let answer = self.post("/auth/login", &json!({"email": email, "password": password})).await;
        text(&answer, "accessToken")
    }

    /// Puts a product with so much stock on the shelf.
    pub(crate) async fn item(&self, sku: &str, stock: i64) -> Item {
        let name = format!("Lamp {sku}");
        let product = json!({"sku": sku, "name": name, "price": 49.9, "status": "PUBLISHED", "quantity": stock});
        let made = self.post("/products", &product).await;
        Item { product: text(&made, "id"), inventory: text(&made, "inventoryId"), stock }
    }

    /// A new buyer, verified and signed in; gives the access token.
    pub(crate) async fn buyer(&self, email: &str) -> String {
        let password = "likes lamps very much";
        let account = json!({"email": email, "password": password, "name": "A buyer of lamps"});
        self.post("/auth/register", &account).await;
        let mails = self.get(&format!("/emails?recipient={email}")).await;
        let body = mails["data"][0]["body"].as_str().expect("a mail with the code");
        let code = body.split(|character: char| !character.is_ascii_digit()).find(|digits| digits.len() == 6);
        self.post("/auth/verify-email", &json!({"email": email, "code": code.expect("a code")})).await;
        self.token_of(email, password).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.send(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        self.send(Method::POST, path, Some(body)).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let mut asked = self.client.request(method, format!("{}{path}", self.base));
        if !self.token.is_empty() {
            asked = asked.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            asked = asked.json(body);
        }
        let answer = asked.send().await.expect("the server answers");
        let status = answer.status();
        let body = answer.text().await.expect("a body");
        assert!(status.is_success(), "{path}: {status} {body}");
        serde_json::from_str(&body).expect("JSON")
    }
}

fn text(document: &Value, member: &str) -> String {
    document[member].as_str().unwrap_or_else(|| panic!("no text {member} in {document}")).to_owned()
}
