-- Carts whose time is over, and orders that wait for a payment, are read page by page in the order of their time and key. With
-- the key in the index a page is read from it as it is; without, all of them were read and sorted for each page, as long as a plan
-- was kept from when there were next to none.

DROP INDEX cart_sessions_due;
CREATE INDEX cart_sessions_due ON cart_sessions (expires_at, key) WHERE state = 'open';

DROP INDEX orders_pending;
CREATE INDEX orders_pending ON orders (created_at, id) WHERE status = 'PENDING';
