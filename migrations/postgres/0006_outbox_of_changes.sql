-- A change of an order is one row of the outbox, and the messages that tell of it are made when it goes out. Before this each
-- message was a row: three of an order that was placed, one of each later change. What waits goes on waiting, what was
-- published stays so; an order of which one message waits is told whole again.
LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE;
CREATE TABLE changes AS
    SELECT max(position) AS position, order_id, 1::bigint AS sequence, NULL::text AS from_status, 'PENDING'::text AS to_status,
           min(at) AS at, CASE WHEN count(*) = count(published_at) THEN max(published_at) END AS published_at,
           max(traceparent) AS traceparent
    FROM outbox WHERE queue <> 'order-status' OR payload::json ->> 'from' IS NULL GROUP BY order_id
    UNION ALL
    SELECT position, order_id, (payload::json ->> 'sequence')::bigint, payload::json ->> 'from', payload::json ->> 'to', at,
           published_at, traceparent
    FROM outbox WHERE queue = 'order-status' AND payload::json ->> 'from' IS NOT NULL;

DROP TABLE outbox;

-- The positions of one order's changes grow in the order the changes were made: who makes one holds the lock on the order's
-- row. The first change of an order is its placing.
--
-- A row is written anew when it is claimed and when it is published, a moment after it was written first and among as many
-- others: with room for all of them in their own pages no index has to learn of a claim.
CREATE TABLE outbox (
    position     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id     uuid NOT NULL,
    sequence     bigint NOT NULL,
    from_status  text,
    to_status    text NOT NULL,
    at           bigint NOT NULL,
    leased_until bigint NOT NULL DEFAULT 0,
    published_at bigint,
    -- Where in a trace the change was made, in the form of W3C Trace Context.
    traceparent  text,
    CONSTRAINT outbox_once UNIQUE (order_id, sequence),
    CONSTRAINT outbox_placed CHECK ((from_status IS NULL) = (sequence = 1) AND sequence >= 1),
    CONSTRAINT outbox_status CHECK (
        from_status IN ('PENDING', 'CONFIRMED', 'SHIPPED', 'DELIVERED', 'CANCELLED')
        AND to_status IN ('PENDING', 'CONFIRMED', 'SHIPPED', 'DELIVERED', 'CANCELLED')
    )
) WITH (fillfactor = 40);
CREATE INDEX outbox_waiting ON outbox (position) WHERE published_at IS NULL;

INSERT INTO outbox (position, order_id, sequence, from_status, to_status, at, published_at, traceparent)
OVERRIDING SYSTEM VALUE
SELECT position, order_id, sequence, from_status, to_status, at, published_at, traceparent FROM changes ORDER BY position;
SELECT setval(pg_get_serial_sequence('outbox', 'position'), (SELECT coalesce(max(position), 0) + 1 FROM outbox), false);
DROP TABLE changes;
