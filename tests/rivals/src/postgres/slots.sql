-- The stock is spread over several rows. A transaction takes from one that no other has locked,
-- and waits only when all are locked. First come is not always first served, and all units of an
-- attempt come from one slot.
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
    UPDATE stock SET available = available - asked WHERE product_id = product AND slot = free;
    RETURN true;
END $$;
