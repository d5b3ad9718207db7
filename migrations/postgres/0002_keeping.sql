-- What is removed after its time is found by its age, and it is known how far the outbox has been emptied.

CREATE INDEX emails_age ON emails (status, created_at);
CREATE INDEX dead_letters_age ON dead_letters (at);

-- Published events are removed from the oldest on, up to this position; `at` is the latest time that one of them, or
-- the placing of its order, has. An order from after it must have all of its events, an older one those behind it.
CREATE TABLE outbox_horizon (
    one      integer PRIMARY KEY CONSTRAINT outbox_horizon_one CHECK (one = 1),
    position bigint NOT NULL,
    at       bigint NOT NULL
);
INSERT INTO outbox_horizon (one, position, at) VALUES (1, 0, -1);
