-- The stock is one row. A transaction that takes from it locks the row until its commit.
CREATE FUNCTION take(product text, asked int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE stock SET available = available - asked
    WHERE product_id = product AND available >= asked;
    RETURN FOUND;
END $$;
