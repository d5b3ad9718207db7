//! The only SQL of the program, behind one face.
//!
//! [`Store`] is that face: what the layers above may ask of a database, whichever it is. Reads may come from any
//! number of callers at once. Stock, carts and orders are changed by [`Journal::commit`] alone, whose one caller is
//! the journal actor.

mod account_rows;
pub mod census;
mod check;
pub mod clock;
mod cursor;
pub mod entry;
pub mod forget;
mod memory;
pub mod open;
mod plan;
mod planned;
pub mod postgres;
pub mod records;
pub mod redis;
mod rows;
pub mod sqlite;

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use crate::domain::cart::Cart;
use crate::domain::ids::{CartKey, EmailId, InventoryId, OrderId, ProductId, ProfileId, UserId};
use crate::domain::product::Product;
use crate::domain::timestamp::Timestamp;
use crate::domain::user::{AccountStatus, EmailAddress, Role};

use census::{Census, PoolUse};
use entry::{Committed, Work};
use forget::{CutOffs, Forgotten};
use records::{
    Account, CodeTry, DeadLetter, Email, EmailFilter, FailedTry, IdempotencyKey, Inventory, KeptCart, Listed, LoginTry,
    Movement, NewCode, NewEmail, NewInventory, NewRefreshToken, Order, OrderFilter, OutboxRecord, Page, ProductChange,
    ProductFilter, ProductPatch, Profile, ProfilePatch, Remembered, Verdict,
};

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database can not be reached or did not answer in time. Nothing was changed.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The connection was lost while a change was being committed: it may have happened.
    #[error("the database did not say whether the change happened")]
    Unknown(#[source] sqlx::Error),
    /// A named rule of the database refused the change. Nothing was changed.
    #[error("refused by the rule {0}")]
    Constraint(String),
    /// Something is wrong with the statement, the data or the disk. Nothing was changed.
    #[error("the database failed")]
    Failed(#[source] sqlx::Error),
    /// What is kept can not be understood.
    #[error("what the database keeps can not be understood: {0}")]
    Corrupt(String),
    /// A cursor that no list gave out.
    #[error("not a cursor of this list")]
    InvalidCursor,
}

/// What the layers above may ask of a database.
pub trait Store: Journal + Accounts + Catalogue + Inventories + Carts + Orders + Outbox + Mail + Upkeep {}

impl<T: Journal + Accounts + Catalogue + Inventories + Carts + Orders + Outbox + Mail + Upkeep> Store for T {}

/// The store as it is handed around.
pub type SharedStore = Arc<dyn Store>;

/// Writing stock, carts and orders, many changes at a time.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Does a batch of work in one transaction, whose first row is the batch's identifier. Entries that no longer
    /// fit what the database says are refused one by one and the rest is written; when this returns, what it says
    /// is durable.
    ///
    /// # Errors
    /// [`CommitError`]; whichever it is, it is the same for all of the batch.
    async fn commit(&self, batch: Uuid, works: &[Work]) -> Result<Committed, CommitError>;
}

/// Why a batch was not committed, or is not known to have been.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Nothing of it was written. After [`StoreError::Constraint`] its author shall try the halves.
    #[error(transparent)]
    NotCommitted(StoreError),
    /// The connection was lost at the commit. Its author shall hand the same batch in again until the answer is
    /// another one; [`AlreadyCommitted`](Self::AlreadyCommitted) then says that `planned` is what happened.
    #[error("the database did not say whether the batch was committed")]
    Unknown {
        /// What was about to be committed.
        planned: Committed,
        /// What the database said instead.
        source: sqlx::Error,
    },
    /// A batch of this identifier was committed before.
    #[error("the batch was committed before")]
    AlreadyCommitted,
}

/// Users, their sign-in and their profiles.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// Makes an account with its profile, its verification code and the mail that carries it, all or nothing.
    ///
    /// # Errors
    /// [`StoreError::Constraint`] `users_email_unique` when the address has an account.
    async fn register(
        &self,
        account: &Account,
        profile: &Profile,
        code: Option<(&NewCode, &NewEmail)>,
    ) -> Result<(), StoreError>;

    /// The account of an address.
    async fn account_by_email(&self, email: &EmailAddress) -> Result<Option<Account>, StoreError>;

    /// The account of a user.
    async fn account(&self, user: UserId) -> Result<Option<Account>, StoreError>;

    /// Whether there is an account with the role [`Role::Admin`].
    async fn has_admin(&self) -> Result<bool, StoreError>;

    /// Replaces a user's code and queues the mail that carries it, all or nothing.
    async fn put_code(&self, code: &NewCode, mail: &NewEmail) -> Result<(), StoreError>;

    /// Tries a verification code; the right one marks the account verified and is spent.
    async fn verify_email(&self, user: UserId, hash: &[u8; 32], now: Timestamp) -> Result<CodeTry, StoreError>;

    /// Tries a reset code; the right one sets the password hash, ends all refresh tokens of the user and is spent.
    async fn reset_password(
        &self,
        user: UserId,
        hash: &[u8; 32],
        password_hash: &str,
        now: Timestamp,
    ) -> Result<CodeTry, StoreError>;

    /// Keeps a try to sign in.
    async fn record_login(&self, login: &LoginTry) -> Result<(), StoreError>;

    /// Keeps the first refresh token of a sign-in.
    async fn insert_refresh_token(&self, token: &NewRefreshToken) -> Result<(), StoreError>;

    /// Spends a refresh token for its successor (whose family and user are taken from the old one). Gives the user,
    /// or `None` when the token is unknown, expired or ended; a token spent before ends its whole family.
    async fn rotate_refresh_token(
        &self,
        hash: &[u8; 32],
        successor: &[u8; 32],
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Option<UserId>, StoreError>;

    /// Ends the family of a refresh token; nothing when it is unknown.
    async fn end_refresh_family(&self, hash: &[u8; 32]) -> Result<(), StoreError>;

    /// Sets a user's role. `None`: no such user. The last active admin can not be lowered.
    ///
    /// # Errors
    /// [`StoreError::Constraint`] `last_admin`.
    async fn set_role(&self, user: UserId, role: Role) -> Result<Option<Account>, StoreError>;

    /// Sets whether an account may be used; suspending ends its refresh tokens. `None`: no such user. The last
    /// active admin can not be suspended.
    ///
    /// # Errors
    /// [`StoreError::Constraint`] `last_admin`.
    async fn set_account_status(&self, user: UserId, status: AccountStatus) -> Result<Option<Account>, StoreError>;

    /// Makes a profile.
    ///
    /// # Errors
    /// [`StoreError::Constraint`] `profiles_user_unique` when the user has one.
    async fn insert_profile(&self, profile: &Profile) -> Result<(), StoreError>;

    /// A profile by its identifier.
    async fn profile(&self, id: ProfileId) -> Result<Option<Profile>, StoreError>;

    /// A user's profile.
    async fn profile_of(&self, user: UserId) -> Result<Option<Profile>, StoreError>;

    /// Changes a profile. `None`: no such profile.
    async fn patch_profile(
        &self,
        id: ProfileId,
        patch: &ProfilePatch,
        now: Timestamp,
    ) -> Result<Option<Profile>, StoreError>;

    /// The secret of that name, the same for every node; `candidate` becomes it when there is none yet.
    async fn secret(&self, name: &str, candidate: [u8; 32]) -> Result<[u8; 32], StoreError>;
}

/// A moment in the history of the products, as the database tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProductsMark(i64);

/// What a look at the products' history found.
#[derive(Debug)]
pub struct ChangedProducts {
    /// Where the next look is to go on.
    pub mark: ProductsMark,
    /// Those that may have changed; `None` when there are too many to name.
    pub ids: Option<Vec<ProductId>>,
}

/// Products.
#[async_trait]
pub trait Catalogue: Send + Sync {
    /// Makes a product, and with `inventory` its stock record and first ledger row, all or nothing.
    ///
    /// # Errors
    /// [`StoreError::Constraint`] `products_sku_unique` when the SKU is taken.
    async fn insert_product(&self, product: &Product, inventory: Option<&NewInventory>) -> Result<(), StoreError>;

    /// A product.
    async fn product(&self, id: ProductId) -> Result<Option<Product>, StoreError>;

    /// Those of the products that there are, in any order.
    async fn products(&self, ids: &[ProductId]) -> Result<Vec<Product>, StoreError>;

    /// Which products others may have changed since a look before this one. The first look names none.
    async fn changed_products(&self, since: Option<ProductsMark>) -> Result<ChangedProducts, StoreError>;

    /// Lists products.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`].
    async fn list_products(&self, filter: &ProductFilter, page: &Page) -> Result<Listed<Product>, StoreError>;

    /// Changes a product whose version is `seen` (any version when `None`), and gives it the next version.
    async fn patch_product(
        &self,
        id: ProductId,
        patch: &ProductPatch,
        seen: Option<i64>,
        now: Timestamp,
    ) -> Result<ProductChange, StoreError>;
}

/// Stock records and the ledger, to read; and to make. What changes a balance goes through [`Journal::commit`].
#[async_trait]
pub trait Inventories: Send + Sync {
    /// Makes a product's stock record and its first ledger row, all or nothing. The product's version grows by one.
    ///
    /// # Errors
    /// [`StoreError::Constraint`] `inventories_product_unique` when the product has one, `inventories_product_exists`
    /// when there is no such product.
    async fn insert_inventory(&self, inventory: &NewInventory) -> Result<(), StoreError>;

    /// A stock record.
    async fn inventory(&self, id: InventoryId) -> Result<Option<Inventory>, StoreError>;

    /// The ledger rows of an inventory, newest first.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`].
    async fn movements(&self, id: InventoryId, page: &Page) -> Result<Listed<Movement>, StoreError>;
}

/// Cart sessions, to read.
#[async_trait]
pub trait Carts: Send + Sync {
    /// A cart session and its lines. The secret is the caller's to compare.
    async fn cart(&self, key: CartKey) -> Result<Option<KeptCart>, StoreError>;

    /// Those of the cart sessions that there are, as [`cart`](Self::cart) gives each, in any order.
    async fn carts(&self, keys: &[CartKey]) -> Result<Vec<Cart>, StoreError>;

    /// Open carts whose time is over at `now`, the longest over first: those behind `after` in the order of their ends
    /// and keys, with their lines.
    async fn carts_due(&self, now: Timestamp, after: (Timestamp, CartKey), limit: u32)
    -> Result<Vec<Cart>, StoreError>;

    /// Open carts behind `after` in the order of their ends and keys, with their lines. Whoever asks again behind
    /// the last one, until there are none, misses no cart that was open all the time: an end only moves back.
    async fn open_carts(&self, after: (Timestamp, CartKey), limit: u32) -> Result<Vec<Cart>, StoreError>;
}

/// Orders, to read; and what was answered to requests that named themselves.
#[async_trait]
pub trait Orders: Send + Sync {
    /// An order with its lines.
    async fn order(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        Ok(self.orders(&[id]).await?.pop())
    }

    /// Those of the orders that there are, with their lines, in no particular order.
    async fn orders(&self, ids: &[OrderId]) -> Result<Vec<Order>, StoreError>;

    /// Lists orders, newest first.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`].
    async fn list_orders(&self, filter: &OrderFilter, page: &Page) -> Result<Listed<Order>, StoreError>;

    /// Orders that have been pending since before `placed_before`, and since when, oldest first: those behind `after`
    /// in that order.
    async fn orders_pending_since(
        &self,
        placed_before: Timestamp,
        after: (Timestamp, OrderId),
        limit: u32,
    ) -> Result<Vec<(Timestamp, OrderId)>, StoreError>;

    /// What was answered to a request of that name since `not_before`.
    async fn remembered(&self, key: &IdempotencyKey, not_before: Timestamp) -> Result<Option<Remembered>, StoreError>;
}

/// Changes of orders on their way out, and messages on their way in.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Claims changes of orders that are not published until `lease_until`: whole orders, oldest first, those of one
    /// order as they came. What is of an order that somebody else has claimed is left out.
    async fn claim_changes(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        limit: u32,
    ) -> Result<Vec<OutboxRecord>, StoreError>;

    /// Gives back the claim on those of the changes at these positions that are not published, so that nobody has to
    /// wait for its end. `lease_until` names the claim: one that somebody else has made since stays.
    async fn release_changes(&self, positions: &[i64], lease_until: Timestamp) -> Result<(), StoreError>;

    /// Marks the changes at these positions as published.
    async fn mark_published(&self, positions: &[i64], now: Timestamp) -> Result<(), StoreError>;

    /// How many events wait, a placed order's three each, and since when the oldest does.
    async fn outbox_lag(&self) -> Result<(i64, Option<Timestamp>), StoreError>;

    /// Keeps each mail whose message was not done before, and marks its message as done, all or nothing.
    /// Gives how many were kept.
    async fn keep_mails_once(
        &self,
        queue: &str,
        mails: &[(String, NewEmail)],
        now: Timestamp,
    ) -> Result<u64, StoreError>;

    /// Whether a message has been done.
    async fn is_consumed(&self, queue: &str, message_id: &str) -> Result<bool, StoreError>;

    /// Puts a message away for good, with why.
    async fn bury(&self, letter: &DeadLetter) -> Result<(), StoreError>;

    /// The messages put away from a queue, newest first, 100 at most.
    async fn dead_letters(&self, queue: &str) -> Result<Vec<DeadLetter>, StoreError>;
}

/// Mails.
#[async_trait]
pub trait Mail: Send + Sync {
    /// Keeps a mail.
    async fn insert_email(&self, mail: &NewEmail) -> Result<(), StoreError>;

    /// Lists mails, newest first.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`].
    async fn list_emails(&self, filter: &EmailFilter, page: &Page) -> Result<Listed<Email>, StoreError>;

    /// Claims mails that are queued and due at `now` until `lease_until`, oldest first, and counts the try.
    async fn claim_emails(&self, now: Timestamp, lease_until: Timestamp, limit: u32) -> Result<Vec<Email>, StoreError>;

    /// A mail server is about to be given the whole of a mail: from here on until it is known what the server said, it
    /// counts as unanswered. The claim lasts until `lease_until`. `false`, and nothing is changed, when try `attempt` is
    /// no longer the newest one: then somebody else has claimed the mail.
    async fn email_handed_over(&self, id: EmailId, attempt: i64, lease_until: Timestamp) -> Result<bool, StoreError>;

    /// A mail server (or, `captured`, nobody) has taken a mail.
    async fn email_done(&self, id: EmailId, captured: bool, now: Timestamp) -> Result<(), StoreError>;

    /// A try failed. Nothing is changed when it is no longer the newest one.
    async fn email_failed(&self, id: EmailId, failed: &FailedTry) -> Result<(), StoreError>;
}

/// What keeps the store itself in order.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Asks the database whether it is there.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Whether other servers may write to the same database. What is in memory is then at best as good as it is new.
    fn is_shared(&self) -> bool;

    /// Verifies invariants 1 to 5 of the design on one consistent view of the database.
    async fn check(&self) -> Result<Vec<Verdict>, StoreError>;

    /// Removes some of what nobody will ask for again, in transactions that nobody waits long for. To be called again
    /// as long as more is left.
    async fn forget(&self, cut_offs: &CutOffs) -> Result<Forgotten, StoreError>;

    /// Counts what is in hand. It takes the longer the more carts are open: microseconds each.
    async fn census(&self) -> Result<Census, StoreError>;

    /// How many connections are in use.
    fn pool_use(&self) -> PoolUse;

    /// Closes all connections, after what they do is done.
    async fn close(&self);
}
