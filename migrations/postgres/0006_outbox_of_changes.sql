-- A change of an order is one row of the outbox, and the messages that tell of it are made when it goes out. Before this each
-- message was a row: three of an order that was placed, one of each later change. What waits goes on waiting, what was
-- published stays so; an order of which one message waits is told whole again.
CREATE TEMPORARY TABLE told ON COMMIT DROP AS
    WITH placed AS (
        SELECT order_id, CASE WHEN count(*) = count(published_at) THEN max(published_at) END AS published_at
        FROM outbox WHERE queue <> 'order-status' OR payload::json ->> 'from' IS NULL GROUP BY order_id
    )
    SELECT position, outbox.order_id, 1::bigint AS sequence, NULL::text AS from_status, 'PENDING'::text AS to_status,
           orders.cart_key, cart_sessions.secret AS cart_secret, payload AS document, at, placed.published_at, traceparent
    FROM outbox
    JOIN placed ON placed.order_id = outbox.order_id
    JOIN orders ON orders.id = outbox.order_id
    JOIN cart_sessions ON cart_sessions.key = orders.cart_key
    WHERE queue = 'send-email'
    UNION ALL
    SELECT position, order_id, (payload::json ->> 'sequence')::bigint, payload::json ->> 'from', payload::json ->> 'to',
           NULL, NULL, NULL, at, published_at, traceparent
    FROM outbox WHERE queue = 'order-status' AND payload::json ->> 'from' IS NOT NULL;

DROP TABLE outbox;

-- The positions of one order's changes grow in the order the changes were made: who makes one holds the lock on the order's
-- row. Only the placing of an order has its cart's session and the order as it was placed, as JSON.
--
-- A row is written anew when it is claimed and when it is published, a moment after it was written first and among as many
-- others: with room for all of them in their own pages no index has to learn of a claim.
CREATE TABLE outbox (
    position     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id     uuid NOT NULL,
    sequence     bigint NOT NULL,
    from_status  text,
    to_status    text NOT NULL,
    cart_key     uuid,
    cart_secret  bytea,
    document     text,
    at           bigint NOT NULL,
    leased_until bigint NOT NULL DEFAULT 0,
    published_at bigint,
    -- Where in a trace the change was made, in the form of W3C Trace Context.
    traceparent  text,
    CONSTRAINT outbox_once UNIQUE (order_id, sequence),
    CONSTRAINT outbox_placed CHECK (
        (from_status IS NULL) = (document IS NOT NULL AND cart_key IS NOT NULL AND cart_secret IS NOT NULL)
        AND octet_length(cart_secret) = 16
    ),
    CONSTRAINT outbox_status CHECK (
        from_status IN ('PENDING', 'CONFIRMED', 'SHIPPED', 'DELIVERED', 'CANCELLED')
        AND to_status IN ('PENDING', 'CONFIRMED', 'SHIPPED', 'DELIVERED', 'CANCELLED')
    )
) WITH (fillfactor = 40);
CREATE INDEX outbox_waiting ON outbox (position) WHERE published_at IS NULL;

INSERT INTO outbox (position, order_id, sequence, from_status, to_status, cart_key, cart_secret, document, at,
    published_at, traceparent)
OVERRIDING SYSTEM VALUE
SELECT position, order_id, sequence, from_status, to_status, cart_key, cart_secret, document, at, published_at, traceparent
FROM told ORDER BY position;
SELECT setval(pg_get_serial_sequence('outbox', 'position'), (SELECT coalesce(max(position), 0) + 1 FROM outbox), false);

-- Positions begin anew where nothing is left.
UPDATE outbox_horizon SET position = 0 WHERE NOT EXISTS (SELECT 1 FROM outbox);
