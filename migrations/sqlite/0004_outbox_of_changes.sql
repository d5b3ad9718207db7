-- A change of an order is one row of the outbox, and the messages that tell of it are made when it goes out. Before this each
-- message was a row: three of an order that was placed, one of each later change. What waits goes on waiting, what was
-- published stays so; an order of which one message waits is told whole again.
CREATE TABLE told AS
    WITH placed AS (
        SELECT order_id, CASE WHEN count(*) = count(published_at) THEN max(published_at) END AS published_at
        FROM outbox WHERE queue <> 'order-status' OR payload ->> 'from' IS NULL GROUP BY order_id
    )
    SELECT position, outbox.order_id, 1 AS sequence, NULL AS from_status, 'PENDING' AS to_status,
           orders.cart_key, cart_sessions.secret AS cart_secret, payload AS document, at, placed.published_at, traceparent
    FROM outbox
    JOIN placed ON placed.order_id = outbox.order_id
    JOIN orders ON orders.id = outbox.order_id
    JOIN cart_sessions ON cart_sessions.key = orders.cart_key
    WHERE queue = 'send-email'
    UNION ALL
    SELECT position, order_id, payload ->> 'sequence', payload ->> 'from', payload ->> 'to', NULL, NULL, NULL, at,
           published_at, traceparent
    FROM outbox WHERE queue = 'order-status' AND payload ->> 'from' IS NOT NULL;

DROP TABLE outbox;

-- The positions of one order's changes grow in the order the changes were made. Only the placing of an order has its cart's
-- session and the order as it was placed, as JSON.
CREATE TABLE outbox (
    position     INTEGER NOT NULL PRIMARY KEY,
    order_id     BLOB NOT NULL,
    sequence     INTEGER NOT NULL,
    from_status  TEXT,
    to_status    TEXT NOT NULL,
    cart_key     BLOB,
    cart_secret  BLOB,
    document     TEXT,
    at           INTEGER NOT NULL,
    leased_until INTEGER NOT NULL DEFAULT 0,
    published_at INTEGER,
    -- Where in a trace the change was made, in the form of W3C Trace Context.
    traceparent  TEXT,
    CONSTRAINT outbox_once UNIQUE (order_id, sequence),
    CONSTRAINT outbox_placed CHECK (
        (from_status IS NULL) = (document IS NOT NULL AND cart_key IS NOT NULL AND cart_secret IS NOT NULL)
        AND length(cart_secret) = 16
    ),
    CONSTRAINT outbox_status CHECK (
        from_status IN ('PENDING', 'CONFIRMED', 'SHIPPED', 'DELIVERED', 'CANCELLED')
        AND to_status IN ('PENDING', 'CONFIRMED', 'SHIPPED', 'DELIVERED', 'CANCELLED')
    )
) STRICT;
CREATE INDEX outbox_waiting ON outbox (position) WHERE published_at IS NULL;

INSERT INTO outbox (position, order_id, sequence, from_status, to_status, cart_key, cart_secret, document, at,
    published_at, traceparent)
SELECT position, order_id, sequence, from_status, to_status, cart_key, cart_secret, document, at, published_at, traceparent
FROM told ORDER BY position;
DROP TABLE told;

-- Positions begin anew where nothing is left.
UPDATE outbox_horizon SET position = 0 WHERE NOT EXISTS (SELECT 1 FROM outbox);
