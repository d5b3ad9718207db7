//! Buyers who are signed in already: hashing so many passwords would take minutes.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use storekeeper::domain::ids::{ProfileId, UserId};
use storekeeper::domain::user::{AccountStatus, EmailAddress, Role};
use storekeeper::persistence::Accounts;
use storekeeper::persistence::clock::Clock;
use storekeeper::persistence::records::{Account, Profile};
use uuid::Uuid;

/// Seconds that a token lives: longer than any run.
const TOKEN_LIFE_SECONDS: u64 = 86_400;

/// Registers so many, straight into a database; gives their access tokens, signed with the server's `secret`.
pub(crate) async fn register(store: &(impl Accounts + ?Sized), secret: &str, count: usize) -> Vec<String> {
    let mut tokens = Vec::with_capacity(count);
    for number in 0..count {
        let (id, now) = (UserId(Uuid::now_v7()), Clock::system().now());
        let email = EmailAddress::parse(&format!("buyer-{number}-{id}@example.org")).expect("an address");
        let account = Account {
            id,
            email: email.clone(),
            name: format!("Buyer {number}"),
            role: Role::User,
            status: AccountStatus::Active,
            verified: true,
            password_hash: "nobody signs in with it".to_owned(),
            created_at: now,
        };
        let profile = Profile {
            id: ProfileId(Uuid::now_v7()),
            user: id,
            email: email.to_string(),
            name: account.name.clone(),
            address: None,
            phone: None,
            created_at: now,
            updated_at: now,
        };
        store.register(&account, &profile, None).await.expect("a new user");
        tokens.push(token(secret, &account));
    }
    tokens
}

fn token(secret: &str, account: &Account) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    let claims = json!({
        "sub": account.id, "email": account.email.as_str(), "name": account.name, "role": account.role.name(),
        "iat": now, "exp": now + TOKEN_LIFE_SECONDS, "jti": Uuid::now_v7(),
    });
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes())).expect("a token")
}
