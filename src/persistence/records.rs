//! What the databases keep, as the layers above ask for it. Neither rows nor answers: those are the stores' and
//! `http`'s own types.

use crate::domain::cart::Cart;
use crate::domain::ids::{CartSessionId, EmailId, InventoryId, MovementId, OrderId, ProductId, ProfileId, UserId};
use crate::domain::money::{Currency, Money};
use crate::domain::names;
use crate::domain::order::{OrderLine, OrderStatus, Totals};
use crate::domain::product::{Product, ProductStatus};
use crate::domain::stock::{Action, Balance, Change, Reason};
use crate::domain::timestamp::Timestamp;
use crate::domain::user::{AccountStatus, EmailAddress, Role};

/// Which part of a list, newest first unless the list says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where the last page ended, as its `next` said; `None` for the first page.
    pub after: Option<String>,
    /// Rows at most, 1 to 100.
    pub limit: u32,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// What to pass as `after` for the rows behind these; `None` when these are the last.
    pub next: Option<String>,
}

/// A user as the sign-in knows them.
#[derive(Debug, Clone)]
pub struct Account {
    /// The user.
    pub id: UserId,
    /// Where they get mail; one account an address.
    pub email: EmailAddress,
    /// What they are called.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Whether the account may be used.
    pub status: AccountStatus,
    /// Whether the address has been confirmed.
    pub verified: bool,
    /// The password's argon2id hash in PHC form.
    pub password_hash: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Name and addresses of a user, apart from the sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its identifier.
    pub id: ProfileId,
    /// Whose it is. One profile a user.
    pub user: UserId,
    /// Where they get mail.
    pub email: String,
    /// What they are called.
    pub name: String,
    /// Where things are sent.
    pub address: Option<String>,
    /// A telephone number.
    pub phone: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// What of a profile is to change; `None` leaves a member as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfilePatch {
    /// The new name.
    pub name: Option<String>,
    /// The new address; the inner `None` removes it.
    pub address: Option<Option<String>>,
    /// The new telephone number; the inner `None` removes it.
    pub phone: Option<Option<String>>,
}

/// What a mailed code is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CodePurpose {
    /// Confirms an e-mail address.
    VerifyEmail,
    /// Lets a new password be set.
    ResetPassword,
}

impl CodePurpose {
    /// The name in the databases.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify_email",
            Self::ResetPassword => "reset_password",
        }
    }
}

/// A mailed code, kept as a keyed hash. A user has one a purpose: a new one replaces it.
#[derive(Debug, Clone)]
pub struct NewCode {
    /// Whose it is.
    pub user: UserId,
    /// What it is good for.
    pub purpose: CodePurpose,
    /// HMAC-SHA-256 of the code.
    pub hash: [u8; 32],
    /// From when on it is good for nothing.
    pub expires_at: Timestamp,
}

/// What became of a try with a mailed code. Wrong, used, expired and worn-out codes are one to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeTry {
    /// It was right and has had its effect; it is spent.
    Accepted,
    /// It was not; the try is counted, and after [`CODE_TRIES_MAX`] the code is dead.
    Refused,
}

/// Wrong tries after which a mailed code is dead.
pub const CODE_TRIES_MAX: i64 = 5;

/// One try to sign in, kept in the login history.
#[derive(Debug, Clone)]
pub struct LoginTry {
    /// The address that was given, in lower case.
    pub email: String,
    /// The account, when there is one.
    pub user: Option<UserId>,
    /// `signed_in`, or the error's code.
    pub outcome: &'static str,
    /// The client's address.
    pub address: String,
    /// What the client calls itself.
    pub user_agent: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// A refresh token, kept as a keyed hash.
#[derive(Debug, Clone)]
pub struct NewRefreshToken {
    /// HMAC-SHA-256 of the token.
    pub hash: [u8; 32],
    /// All tokens that came of one sign-in.
    pub family: uuid::Uuid,
    /// Whose it is.
    pub user: UserId,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is good for nothing.
    pub expires_at: Timestamp,
}

/// A mail to be kept and, when there is somewhere to send it, sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEmail {
    /// Its identifier, and the source of its `Message-ID`.
    pub id: EmailId,
    /// From whom.
    pub sender: String,
    /// To whom.
    pub recipient: String,
    /// Its subject.
    pub subject: String,
    /// Its text.
    pub body: String,
    /// Its text as HTML, when it has one.
    pub html: Option<String>,
    /// What part of the shop it comes from: `auth`, `orders` …
    pub source: String,
    /// Queued to be sent, or kept as captured from the start.
    pub status: EmailStatus,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Where a mail stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EmailStatus {
    /// To be sent.
    Queued,
    /// A mail server has taken it.
    Sent,
    /// Kept only: no mail server is configured.
    Captured,
    /// Given up; the last error says why.
    Failed,
}

names!(EmailStatus { Queued = "QUEUED", Sent = "SENT", Captured = "CAPTURED", Failed = "FAILED" });
/// A kept mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email {
    /// As it was handed in.
    pub mail: NewEmail,
    /// Tries to send it so far; the newest one's number.
    pub attempts: i64,
    /// Times that a mail server was given it whole and did not say whether it took it.
    pub unanswered: i64,
    /// What the last failed try said.
    pub last_error: Option<String>,
    /// When a mail server took it.
    pub sent_at: Option<Timestamp>,
}

/// What a failed try to send a mail leaves behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedTry {
    /// The try's number, as the claim gave it.
    pub attempt: i64,
    /// Why, for people.
    pub error: String,
    /// When the mail is due again; given up when there is none.
    pub retry_at: Option<Timestamp>,
    /// Times, this one included, that a mail server was given it whole and did not say whether it took it.
    pub unanswered: i64,
}

/// Which mails to list; `None` is any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EmailFilter {
    /// To whom.
    pub recipient: Option<String>,
    /// What part of the shop they come from.
    pub source: Option<String>,
    /// Where they stand.
    pub status: Option<EmailStatus>,
}

/// The stock record of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Its identifier.
    pub id: InventoryId,
    /// Whose stock it is.
    pub product: ProductId,
    /// Stock keeping unit.
    pub sku: String,
    /// What is there.
    pub balance: Balance,
    /// When the balance last changed.
    pub updated_at: Timestamp,
}

/// An inventory to be made, with its first ledger row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInventory {
    /// Its identifier.
    pub id: InventoryId,
    /// Whose stock it is.
    pub product: ProductId,
    /// Stock keeping unit.
    pub sku: String,
    /// Opening stock, 0 or more.
    pub quantity: i64,
    /// Identifier of the `initial` row.
    pub movement: MovementId,
    /// Who makes it.
    pub actor: String,
    /// When.
    pub at: Timestamp,
}

/// One row of the stock ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// Its identifier.
    pub id: MovementId,
    /// Its number within the inventory, from 1, without gaps.
    pub seq: i64,
    /// In or out.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// How many units.
    pub units: i64,
    /// By how much it changed the balance.
    pub change: Change,
    /// On hand after it.
    pub on_hand: i64,
    /// Held after it.
    pub held: i64,
    /// The cart that caused it.
    pub cart: Option<CartSessionId>,
    /// The order that caused it.
    pub order: Option<OrderId>,
    /// What the one who caused it calls it.
    pub reference: Option<String>,
    /// Who caused it.
    pub actor: String,
    /// When it was committed.
    pub at: Timestamp,
}

/// How a list of products is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProductSort {
    /// By name.
    Name,
    /// By price.
    Price,
    /// By when it was made.
    CreatedAt,
}

/// Which products to list, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductFilter {
    /// Part of the name or the SKU, in any case.
    pub text: Option<String>,
    /// Their status; `None` is any.
    pub status: Option<ProductStatus>,
    /// What they are sorted by.
    pub sort: ProductSort,
    /// Largest (newest, last) first.
    pub descending: bool,
}

/// What of a product is to change; `None` leaves a member as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProductPatch {
    /// The new name.
    pub name: Option<String>,
    /// The new description; the inner `None` removes it.
    pub description: Option<Option<String>>,
    /// The new price.
    pub price: Option<Money>,
    /// The new status.
    pub status: Option<ProductStatus>,
}

/// What became of a change of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProductChange {
    /// It was made; the product after it.
    Changed(Box<Product>),
    /// There is no such product.
    NotFound,
    /// The product's version is another than the one named.
    Stale,
}

/// An order as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its identifier.
    pub id: OrderId,
    /// The cart that became it. One order a cart.
    pub cart: CartSessionId,
    /// Who bought.
    pub user: UserId,
    /// Their name at that time.
    pub user_name: String,
    /// Their address at that time.
    pub user_email: String,
    /// The currency of all its amounts.
    pub currency: Currency,
    /// What it comes to.
    pub totals: Totals,
    /// Where it stands.
    pub status: OrderStatus,
    /// Number of its last change of status, from 1 (placed), without gaps.
    pub sequence: i64,
    /// Where it goes: a JSON text, string or object, as the buyer gave it.
    pub shipping_address: Option<String>,
    /// What the payment is called, once it is confirmed.
    pub payment_reference: Option<String>,
    /// What was bought.
    pub lines: Vec<OrderedLine>,
    /// When it was placed.
    pub created_at: Timestamp,
    /// When its status last changed.
    pub updated_at: Timestamp,
}

/// A line of an order, and whose stock it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderedLine {
    /// What was sold.
    pub line: OrderLine,
    /// Whose stock it came from.
    pub inventory: InventoryId,
}

/// Which orders to list; `None` is any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderFilter {
    /// Whose.
    pub user: Option<UserId>,
    /// Where they stand.
    pub status: Option<OrderStatus>,
}

/// A cart session as it is kept, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptCart {
    /// The cart; when it has ended, its lines are those that ended with it.
    pub cart: Cart,
    /// The order it became.
    pub order: Option<OrderId>,
}

/// A change of an order that waits to be told: a row of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRecord {
    /// Its place among all changes. Those of one order are told in the order of their places.
    pub position: i64,
    /// The order.
    pub order: OrderId,
    /// The number of the change, the order's placing being the first.
    pub sequence: i64,
    /// Where it stood; `None` when it was placed.
    pub from: Option<OrderStatus>,
    /// Where it stands since then.
    pub to: OrderStatus,
    /// When it changed.
    pub at: Timestamp,
    /// Where in a trace it changed (W3C Trace Context); `None` outside of all traces.
    pub traceparent: Option<String>,
}

/// A message that could not be read or that a rule refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The queue it came from.
    pub queue: String,
    /// Its identifier, as its sender gave it.
    pub message_id: String,
    /// What it said.
    pub payload: String,
    /// Why it was not done.
    pub reason: String,
    /// When it was put away.
    pub at: Timestamp,
}

/// A success that is given back when the same request comes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResponse {
    /// HTTP status.
    pub status: u16,
    /// Headers that belong to the answer, name and value.
    pub headers: Vec<(String, String)>,
    /// The JSON body.
    pub body: String,
}

/// A caller's name for one request. The same scope and key is the same request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    /// Who asks: a user, a cart session, or the key itself.
    pub scope: String,
    /// What they call it.
    pub key: String,
}

/// A stored success, with what the request was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// HMAC-SHA-256 over method, path and body of the request.
    pub fingerprint: [u8; 32],
    /// What was answered.
    pub response: StoredResponse,
}

/// One rule of the books, verified on a whole database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The invariant's number in the design, 1 to 5.
    pub invariant: u8,
    /// What must be true.
    pub rule: &'static str,
    /// How many things were looked at.
    pub checked: i64,
    /// Identifiers of those that break it; 20 at most are named.
    pub broken: Vec<String>,
    /// How many break it.
    pub broken_count: i64,
}
