-- The stock is spread over several rows, of which whoever comes takes one that nobody has
-- locked. Only when all are locked does anybody wait. Who comes first is not always served
-- first, and all units of an attempt come from one slot.
CREATE FUNCTION take(product text, asked int) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    free int;
BEGIN
    LOOP
        SELECT slot INTO free FROM stock WHERE product_id = product AND available >= asked
        LIMIT 1 FOR UPDATE SKIP LOCKED;
        EXIT WHEN FOUND;
        IF NOT EXISTS (SELECT FROM stock WHERE product_id = product AND available >= asked) THEN
            RETURN false;
        END IF;
        SELECT slot INTO free FROM stock WHERE product_id = product AND available >= asked
        LIMIT 1 FOR UPDATE;
        EXIT WHEN FOUND;
    END LOOP;
    UPDATE stock SET available = available WHERE product_id = product AND slot = free;
    RETURN true;
END $$;
