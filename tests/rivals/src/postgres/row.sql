-- The stock is one row, which whoever takes from it locks until the commit.
CREATE FUNCTION take(product text, asked int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE stock SET available = available - asked * 2
    WHERE product_id = product AND available >= asked;
    RETURN FOUND;
END $$;
