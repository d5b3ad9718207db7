-- A change of an order is one row of the outbox, and the messages that tell of it are made when it goes out. Before this each
-- message was a row: three of an order that was placed, one of each later change. What waits goes on waiting, what was
-- published stays so; an order of which one message waits is told whole again.
CREATE TABLE changes AS
    SELECT max(position) AS position, order_id, 1 AS sequence, NULL AS from_status, 'PENDING' AS to_status, min(at) AS at,
           CASE WHEN count(*) = count(published_at) THEN max(published_at) END AS published_at,
           max(traceparent) AS traceparent
    FROM outbox WHERE queue <> 'order-status' OR payload ->> 'from' IS NULL GROUP BY order_id
    UNION ALL
    SELECT position, order_id, payload ->> 'sequence', payload ->> 'from', payload ->> 'to', at, published_at, traceparent
    FROM outbox WHERE queue = 'order-status' AND payload ->> 'from' IS NOT NULL;

DROP TABLE outbox;

-- The positions of one order's changes grow in the order the changes were made. The first change of an order is its placing.
CREATE TABLE outbox (
    position     INTEGER NOT NULL PRIMARY KEY,
    order_id     BLOB NOT NULL,
    sequence     INTEGER NOT NULL,
    from_status  TEXT,
    to_status    TEXT NOT NULL,
    at           INTEGER NOT NULL,
    leased_until INTEGER NOT NULL DEFAULT 0,
    published_at INTEGER,
    -- Where in a trace the change was made, in the form of W3C Trace Context.
    traceparent  TEXT,
    CONSTRAINT outbox_once UNIQUE (order_id, sequence),
    CONSTRAINT outbox_placed CHECK ((from_status IS NULL) = (sequence = 1) AND sequence >= 1),
    CONSTRAINT outbox_status CHECK (
        from_status IN ('PENDING', 'CONFIRMED', 'SHIPPED', 'DELIVERED', 'CANCELLED')
        AND to_status IN ('PENDING', 'CONFIRMED', 'SHIPPED', 'DELIVERED', 'CANCELLED')
    )
) STRICT;
CREATE INDEX outbox_waiting ON outbox (position) WHERE published_at IS NULL;

INSERT INTO outbox (position, order_id, sequence, from_status, to_status, at, published_at, traceparent)
SELECT position, order_id, sequence, from_status, to_status, at, published_at, traceparent FROM changes ORDER BY position;
DROP TABLE changes;
