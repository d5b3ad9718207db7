-- The whole shop. Identifiers are 16 bytes (UUIDv7: they grow with time), times are microseconds since 1970 UTC,
-- money is in minor units. Each named rule backs an invariant; the program maps the names to its answers.

-- Secrets made once and the same for every node: the token key, the key of fingerprints.
CREATE TABLE secrets (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL CONSTRAINT secrets_value_length CHECK (length(value) = 32)
) STRICT, WITHOUT ROWID;

-- Users ---------------------------------------------------------------------------------------------------------

CREATE TABLE users (
    id            BLOB NOT NULL PRIMARY KEY,
    email         TEXT NOT NULL CONSTRAINT users_email_unique UNIQUE,
    name          TEXT NOT NULL,
    role          TEXT NOT NULL CONSTRAINT users_role CHECK (role IN ('USER', 'ADMIN')),
    status        TEXT NOT NULL CONSTRAINT users_status CHECK (status IN ('ACTIVE', 'SUSPENDED')),
    verified      INTEGER NOT NULL CONSTRAINT users_verified CHECK (verified IN (0, 1)),
    password_hash TEXT NOT NULL,
    created_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX users_admins ON users (status) WHERE role = 'ADMIN';

CREATE TABLE profiles (
    id         BLOB NOT NULL PRIMARY KEY,
    user_id    BLOB NOT NULL CONSTRAINT profiles_user_unique UNIQUE,
    email      TEXT NOT NULL,
    name       TEXT NOT NULL,
    address    TEXT,
    phone      TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A mailed code, as a keyed hash; one a user and purpose. It is removed when it is spent.
CREATE TABLE codes (
    user_id     BLOB NOT NULL,
    purpose     TEXT NOT NULL CONSTRAINT codes_purpose CHECK (purpose IN ('verify_email', 'reset_password')),
    hash        BLOB NOT NULL,
    wrong_tries INTEGER NOT NULL DEFAULT 0,
    expires_at  INTEGER NOT NULL,
    PRIMARY KEY (user_id, purpose)
) STRICT, WITHOUT ROWID;

CREATE TABLE logins (
    at         INTEGER NOT NULL,
    email      TEXT NOT NULL,
    user_id    BLOB,
    outcome    TEXT NOT NULL,
    address    TEXT NOT NULL,
    user_agent TEXT
) STRICT;
CREATE INDEX logins_at ON logins (at);

-- Refresh tokens, as keyed hashes. spent_at: it was exchanged for its successor; ended_at: its family was ended.
CREATE TABLE refresh_tokens (
    hash       BLOB NOT NULL PRIMARY KEY,
    family     BLOB NOT NULL,
    user_id    BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    spent_at   INTEGER,
    ended_at   INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX refresh_tokens_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_user ON refresh_tokens (user_id);

-- Catalogue and stock -------------------------------------------------------------------------------------------

-- Name and SKU are kept in lower case too, for search and sorting: SQLite itself knows the case of ASCII only.
CREATE TABLE products (
    id           BLOB NOT NULL PRIMARY KEY,
    sku          TEXT NOT NULL CONSTRAINT products_sku_unique UNIQUE,
    sku_folded   TEXT NOT NULL,
    name         TEXT NOT NULL,
    name_folded  TEXT NOT NULL,
    description  TEXT,
    price        INTEGER NOT NULL CONSTRAINT products_price CHECK (price >= 0),
    status       TEXT NOT NULL CONSTRAINT products_status CHECK (status IN ('DRAFT', 'PUBLISHED', 'UNLISTED')),
    inventory_id BLOB,
    version      INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX products_by_name ON products (name_folded, id);
CREATE INDEX products_by_price ON products (price, id);
CREATE INDEX products_by_creation ON products (created_at, id);

-- The balance of each inventory after its newest ledger row. It changes with the ledger, never without.
CREATE TABLE inventories (
    id            BLOB NOT NULL PRIMARY KEY,
    product_id    BLOB NOT NULL CONSTRAINT inventories_product_unique UNIQUE,
    sku           TEXT NOT NULL,
    on_hand       INTEGER NOT NULL,
    held          INTEGER NOT NULL,
    seq           INTEGER NOT NULL,
    last_movement BLOB NOT NULL,
    updated_at    INTEGER NOT NULL,
    CONSTRAINT inventories_never_oversold CHECK (held >= 0 AND on_hand >= held),
    CONSTRAINT inventories_seq CHECK (seq >= 1)
) STRICT, WITHOUT ROWID;

-- The ledger. Each row points to the one before it of the same inventory, so that a history is a walk from
-- inventories.last_movement and rows of all inventories are appended at one end of one tree.
CREATE TABLE movements (
    id           BLOB NOT NULL PRIMARY KEY,
    previous     BLOB,
    inventory_id BLOB NOT NULL,
    seq          INTEGER NOT NULL,
    reason       TEXT NOT NULL,
    action       TEXT NOT NULL CONSTRAINT movements_action CHECK (action IN ('IN', 'OUT')),
    units        INTEGER NOT NULL CONSTRAINT movements_units CHECK (units >= 0),
    on_hand_change INTEGER NOT NULL,
    held_change  INTEGER NOT NULL,
    on_hand      INTEGER NOT NULL,
    held         INTEGER NOT NULL,
    cart_key     BLOB,
    order_id     BLOB,
    reference    TEXT,
    actor        TEXT NOT NULL,
    at           INTEGER NOT NULL,
    CONSTRAINT movements_never_oversold CHECK (held >= 0 AND on_hand >= held),
    CONSTRAINT movements_chain CHECK ((previous IS NULL) = (seq = 1))
) STRICT, WITHOUT ROWID;

-- Carts and orders ----------------------------------------------------------------------------------------------

CREATE TABLE cart_sessions (
    key        BLOB NOT NULL PRIMARY KEY,
    secret     BLOB NOT NULL,
    state      TEXT NOT NULL CONSTRAINT cart_sessions_state CHECK (state IN ('open', 'ordered', 'cleared', 'expired')),
    version    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX cart_sessions_due ON cart_sessions (expires_at) WHERE state = 'open';

-- The lines. A line's number is the version of the session that opened it.
CREATE TABLE holds (
    cart_key     BLOB NOT NULL,
    number       INTEGER NOT NULL,
    product_id   BLOB NOT NULL,
    inventory_id BLOB NOT NULL,
    quantity     INTEGER NOT NULL CONSTRAINT holds_quantity CHECK (quantity > 0),
    state        TEXT NOT NULL CONSTRAINT holds_state CHECK (state IN ('open', 'sold', 'released', 'expired')),
    PRIMARY KEY (cart_key, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE orders (
    id                BLOB NOT NULL PRIMARY KEY,
    cart_key          BLOB NOT NULL CONSTRAINT orders_one_a_cart UNIQUE,
    user_id           BLOB NOT NULL,
    user_name         TEXT NOT NULL,
    user_email        TEXT NOT NULL,
    currency          TEXT NOT NULL,
    subtotal          INTEGER NOT NULL,
    tax               INTEGER NOT NULL,
    grand_total       INTEGER NOT NULL,
    status            TEXT NOT NULL CONSTRAINT orders_status
                      CHECK (status IN ('PENDING', 'CONFIRMED', 'SHIPPED', 'DELIVERED', 'CANCELLED')),
    sequence          INTEGER NOT NULL,
    shipping_address  TEXT,
    payment_reference TEXT,
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    CONSTRAINT orders_total CHECK (grand_total = subtotal + tax)
) STRICT, WITHOUT ROWID;
CREATE INDEX orders_user ON orders (user_id, id);
CREATE INDEX orders_status_id ON orders (status, id);
CREATE INDEX orders_pending ON orders (created_at) WHERE status = 'PENDING';

CREATE TABLE order_items (
    order_id     BLOB NOT NULL,
    position     INTEGER NOT NULL,
    product_id   BLOB NOT NULL,
    inventory_id BLOB NOT NULL,
    name         TEXT NOT NULL,
    sku          TEXT NOT NULL,
    price        INTEGER NOT NULL,
    quantity     INTEGER NOT NULL,
    total        INTEGER NOT NULL,
    PRIMARY KEY (order_id, position),
    CONSTRAINT order_items_total CHECK (total = price * quantity)
) STRICT, WITHOUT ROWID;

-- Events and messages -------------------------------------------------------------------------------------------

-- The positions of one order's events grow in the order the events were written.
CREATE TABLE outbox (
    position     INTEGER NOT NULL PRIMARY KEY,
    id           BLOB NOT NULL CONSTRAINT outbox_id_unique UNIQUE,
    order_id     BLOB NOT NULL,
    queue        TEXT NOT NULL,
    payload      TEXT NOT NULL,
    at           INTEGER NOT NULL,
    leased_until INTEGER NOT NULL DEFAULT 0,
    published_at INTEGER
) STRICT;
CREATE INDEX outbox_waiting ON outbox (position) WHERE published_at IS NULL;
CREATE INDEX outbox_order ON outbox (order_id);

CREATE TABLE consumed_messages (
    queue      TEXT NOT NULL,
    message_id TEXT NOT NULL,
    at         INTEGER NOT NULL,
    CONSTRAINT consumed_messages_once PRIMARY KEY (queue, message_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
    queue      TEXT NOT NULL,
    message_id TEXT NOT NULL,
    payload    TEXT NOT NULL,
    reason     TEXT NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (queue, message_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX dead_letters_at ON dead_letters (queue, at);

CREATE TABLE emails (
    id         BLOB NOT NULL PRIMARY KEY,
    sender     TEXT NOT NULL,
    recipient  TEXT NOT NULL,
    subject    TEXT NOT NULL,
    body       TEXT NOT NULL,
    html       TEXT,
    source     TEXT NOT NULL,
    status     TEXT NOT NULL CONSTRAINT emails_status CHECK (status IN ('QUEUED', 'SENT', 'CAPTURED', 'FAILED')),
    attempts   INTEGER NOT NULL DEFAULT 0,
    -- Times that a mail server was given it whole and did not say whether it took it.
    unanswered INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    due_at     INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    sent_at    INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX emails_due ON emails (due_at) WHERE status = 'QUEUED';
CREATE INDEX emails_recipient ON emails (recipient, id);

-- What was answered to requests that named themselves.
CREATE TABLE idempotency_keys (
    scope       TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    status      INTEGER NOT NULL,
    headers     TEXT NOT NULL,
    body        TEXT NOT NULL,
    at          INTEGER NOT NULL,
    CONSTRAINT idempotency_keys_once PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_at ON idempotency_keys (at);
CREATE INDEX consumed_messages_at ON consumed_messages (at);

-- The batches that were committed: when a commit's outcome is unknown, its row tells.
CREATE TABLE journal_batches (
    id BLOB NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What is forgotten is found by its age.
CREATE INDEX journal_batches_at ON journal_batches (at);
CREATE INDEX codes_expiry ON codes (expires_at);
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);
