-- Which transaction changed a product last, so that servers which keep products in memory can ask what has changed since
-- they looked. Whoever changes a product, by whatever program, is noted. Nothing is known of what was changed before.
ALTER TABLE products ADD COLUMN changed_by xid8;

CREATE INDEX products_by_change ON products (changed_by) WHERE changed_by IS NOT NULL;

CREATE FUNCTION note_product_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_by := pg_current_xact_id();
    RETURN NEW;
END
$$;

CREATE TRIGGER products_note_change BEFORE UPDATE ON products
    FOR EACH ROW EXECUTE FUNCTION note_product_change();
