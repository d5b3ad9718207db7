-- The whole shop. Identifiers are UUIDv7 (they grow with time), times are microseconds since 1970 UTC, money is in
-- minor units. Each named rule backs an invariant; the program maps the names to its answers, and the rules are called
-- the same in migrations/sqlite.
--
-- Rows that change again and again leave room in their pages, so that a new version of a row stays beside the old one
-- and, where no index knows the column, no index has to learn of it.

-- Secrets made once and the same for every node: the token key, the key of fingerprints.
CREATE TABLE secrets (
    name  text NOT NULL PRIMARY KEY,
    value bytea NOT NULL CONSTRAINT secrets_value_length CHECK (octet_length(value) = 32)
);

-- Users ---------------------------------------------------------------------------------------------------------

CREATE TABLE users (
    id            uuid NOT NULL PRIMARY KEY,
    email         text NOT NULL CONSTRAINT users_email_unique UNIQUE,
    name          text NOT NULL,
    role          text NOT NULL CONSTRAINT users_role CHECK (role IN ('USER', 'ADMIN')),
    status        text NOT NULL CONSTRAINT users_status CHECK (status IN ('ACTIVE', 'SUSPENDED')),
    verified      boolean NOT NULL,
    password_hash text NOT NULL,
    created_at    bigint NOT NULL
);

CREATE TABLE profiles (
    id         uuid NOT NULL PRIMARY KEY,
    user_id    uuid NOT NULL CONSTRAINT profiles_user_unique UNIQUE,
    email      text NOT NULL,
    name       text NOT NULL,
    address    text,
    phone      text,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL
);

-- A mailed code, as a keyed hash; one a user and purpose. It is removed when it is spent.
CREATE TABLE codes (
    user_id     uuid NOT NULL,
    purpose     text NOT NULL CONSTRAINT codes_purpose CHECK (purpose IN ('verify_email', 'reset_password')),
    hash        bytea NOT NULL,
    wrong_tries bigint NOT NULL DEFAULT 0,
    expires_at  bigint NOT NULL,
    PRIMARY KEY (user_id, purpose)
);

CREATE TABLE logins (
    at         bigint NOT NULL,
    email      text NOT NULL,
    user_id    uuid,
    outcome    text NOT NULL,
    address    text NOT NULL,
    user_agent text
);
CREATE INDEX logins_at ON logins (at);

-- Refresh tokens, as keyed hashes. spent_at: it was exchanged for its successor; ended_at: its family was ended.
CREATE TABLE refresh_tokens (
    hash       bytea NOT NULL PRIMARY KEY,
    family     uuid NOT NULL,
    user_id    uuid NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    spent_at   bigint,
    ended_at   bigint
);
CREATE INDEX refresh_tokens_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_user ON refresh_tokens (user_id);

-- Catalogue and stock -------------------------------------------------------------------------------------------

-- Name and SKU are kept in lower case too, for search and sorting; names are sorted by their bytes, as in SQLite.
CREATE TABLE products (
    id           uuid NOT NULL PRIMARY KEY,
    sku          text NOT NULL CONSTRAINT products_sku_unique UNIQUE,
    sku_folded   text NOT NULL,
    name         text NOT NULL,
    name_folded  text COLLATE "C" NOT NULL,
    description  text,
    price        bigint NOT NULL CONSTRAINT products_price CHECK (price >= 0),
    status       text NOT NULL CONSTRAINT products_status CHECK (status IN ('DRAFT', 'PUBLISHED', 'UNLISTED')),
    inventory_id uuid,
    version      bigint NOT NULL,
    created_at   bigint NOT NULL,
    updated_at   bigint NOT NULL
);
CREATE INDEX products_by_name ON products (name_folded, id);
CREATE INDEX products_by_price ON products (price, id);
CREATE INDEX products_by_creation ON products (created_at, id);

-- The balance of each inventory after its newest ledger row. It changes with the ledger, never without.
CREATE TABLE inventories (
    id            uuid NOT NULL PRIMARY KEY,
    product_id    uuid NOT NULL CONSTRAINT inventories_product_unique UNIQUE,
    sku           text NOT NULL,
    on_hand       bigint NOT NULL,
    held          bigint NOT NULL,
    seq           bigint NOT NULL,
    last_movement uuid NOT NULL,
    updated_at    bigint NOT NULL,
    CONSTRAINT inventories_never_oversold CHECK (held >= 0 AND on_hand >= held),
    CONSTRAINT inventories_seq CHECK (seq >= 1)
) WITH (fillfactor = 50);

-- The ledger. Each row points to the one before it of the same inventory, so that a history is a walk from
-- inventories.last_movement and rows of all inventories are appended at one end of one index.
CREATE TABLE movements (
    id           uuid NOT NULL PRIMARY KEY,
    previous     uuid,
    inventory_id uuid NOT NULL,
    seq          bigint NOT NULL,
    reason       text NOT NULL,
    action       text NOT NULL CONSTRAINT movements_action CHECK (action IN ('IN', 'OUT')),
    units        bigint NOT NULL CONSTRAINT movements_units CHECK (units >= 0),
    on_hand_change bigint NOT NULL,
    held_change  bigint NOT NULL,
    on_hand      bigint NOT NULL,
    held         bigint NOT NULL,
    cart_key     uuid,
    order_id     uuid,
    reference    text,
    actor        text NOT NULL,
    at           bigint NOT NULL,
    CONSTRAINT movements_never_oversold CHECK (held >= 0 AND on_hand >= held),
    CONSTRAINT movements_chain CHECK ((previous IS NULL) = (seq = 1))
);

-- Carts and orders ----------------------------------------------------------------------------------------------

CREATE TABLE cart_sessions (
    key        uuid NOT NULL PRIMARY KEY,
    secret     bytea NOT NULL,
    state      text NOT NULL CONSTRAINT cart_sessions_state CHECK (state IN ('open', 'ordered', 'cleared', 'expired')),
    version    bigint NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL
) WITH (fillfactor = 75);
CREATE INDEX cart_sessions_due ON cart_sessions (expires_at) WHERE state = 'open';

-- The lines. A line's number is the version of the session that opened it.
CREATE TABLE holds (
    cart_key     uuid NOT NULL,
    number       bigint NOT NULL,
    product_id   uuid NOT NULL,
    inventory_id uuid NOT NULL,
    quantity     bigint NOT NULL CONSTRAINT holds_quantity CHECK (quantity > 0),
    state        text NOT NULL CONSTRAINT holds_state CHECK (state IN ('open', 'sold', 'released', 'expired')),
    PRIMARY KEY (cart_key, number)
) WITH (fillfactor = 75);

CREATE TABLE orders (
    id                uuid NOT NULL PRIMARY KEY,
    cart_key          uuid NOT NULL CONSTRAINT orders_one_a_cart UNIQUE,
    user_id           uuid NOT NULL,
    user_name         text NOT NULL,
    user_email        text NOT NULL,
    currency          text NOT NULL,
    subtotal          bigint NOT NULL,
    tax               bigint NOT NULL,
    grand_total       bigint NOT NULL,
    status            text NOT NULL CONSTRAINT orders_status
                      CHECK (status IN ('PENDING', 'CONFIRMED', 'SHIPPED', 'DELIVERED', 'CANCELLED')),
    sequence          bigint NOT NULL,
    shipping_address  text,
    payment_reference text,
    created_at        bigint NOT NULL,
    updated_at        bigint NOT NULL,
    CONSTRAINT orders_total CHECK (grand_total = subtotal + tax)
);
CREATE INDEX orders_user ON orders (user_id, id);
CREATE INDEX orders_status_id ON orders (status, id);
CREATE INDEX orders_pending ON orders (created_at) WHERE status = 'PENDING';

CREATE TABLE order_items (
    order_id     uuid NOT NULL,
    position     bigint NOT NULL,
    product_id   uuid NOT NULL,
    inventory_id uuid NOT NULL,
    name         text NOT NULL,
    sku          text NOT NULL,
    price        bigint NOT NULL,
    quantity     bigint NOT NULL,
    total        bigint NOT NULL,
    PRIMARY KEY (order_id, position),
    CONSTRAINT order_items_total CHECK (total = price * quantity)
);

-- Events and messages -------------------------------------------------------------------------------------------

-- The positions of one order's events grow in the order the events were written: who writes one holds the lock on
-- the order's row.
CREATE TABLE outbox (
    position     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id           uuid NOT NULL CONSTRAINT outbox_id_unique UNIQUE,
    order_id     uuid NOT NULL,
    queue        text NOT NULL,
    payload      text NOT NULL,
    at           bigint NOT NULL,
    leased_until bigint NOT NULL DEFAULT 0,
    published_at bigint
) WITH (fillfactor = 75);
CREATE INDEX outbox_waiting ON outbox (position) WHERE published_at IS NULL;
CREATE INDEX outbox_order ON outbox (order_id);

CREATE TABLE consumed_messages (
    queue      text NOT NULL,
    message_id text NOT NULL,
    at         bigint NOT NULL,
    CONSTRAINT consumed_messages_once PRIMARY KEY (queue, message_id)
);

CREATE TABLE dead_letters (
    queue      text NOT NULL,
    message_id text NOT NULL,
    payload    text NOT NULL,
    reason     text NOT NULL,
    at         bigint NOT NULL,
    PRIMARY KEY (queue, message_id)
);
CREATE INDEX dead_letters_at ON dead_letters (queue, at);

CREATE TABLE emails (
    id         uuid NOT NULL PRIMARY KEY,
    sender     text NOT NULL,
    recipient  text NOT NULL,
    subject    text NOT NULL,
    body       text NOT NULL,
    html       text,
    source     text NOT NULL,
    status     text NOT NULL CONSTRAINT emails_status CHECK (status IN ('QUEUED', 'SENT', 'CAPTURED', 'FAILED')),
    attempts   bigint NOT NULL DEFAULT 0,
    -- Times that a mail server was given it whole and did not say whether it took it.
    unanswered bigint NOT NULL DEFAULT 0,
    last_error text,
    due_at     bigint NOT NULL,
    created_at bigint NOT NULL,
    sent_at    bigint
);
CREATE INDEX emails_due ON emails (due_at) WHERE status = 'QUEUED';
CREATE INDEX emails_recipient ON emails (recipient, id);

-- What was answered to requests that named themselves.
CREATE TABLE idempotency_keys (
    scope       text NOT NULL,
    key         text NOT NULL,
    fingerprint bytea NOT NULL,
    status      bigint NOT NULL,
    headers     text NOT NULL,
    body        text NOT NULL,
    at          bigint NOT NULL,
    CONSTRAINT idempotency_keys_once PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_keys_at ON idempotency_keys (at);
CREATE INDEX consumed_messages_at ON consumed_messages (at);

-- The batches that were committed: when a commit's outcome is unknown, its row tells.
CREATE TABLE journal_batches (
    id uuid NOT NULL PRIMARY KEY,
    at bigint NOT NULL
);

-- What is forgotten is found by its age.
CREATE INDEX journal_batches_at ON journal_batches (at);
CREATE INDEX codes_expiry ON codes (expires_at);
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);
