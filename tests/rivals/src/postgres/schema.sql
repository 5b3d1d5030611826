-- What does not change while a sale runs stands apart from its stock, so that only the stock is
-- contended. Each way to take units has its own `take`; see row.sql and slots.sql.
CREATE TABLE sales (
    product_id text PRIMARY KEY,
    total int NOT NULL,
    limit_per_buyer int,
    hold_ms bigint,
    slots int NOT NULL
);

-- A page has room for the versions of a hot row, which then needs no new index entries.
CREATE TABLE stock (
    product_id text,
    slot int,
    available int NOT NULL CHECK (available >= 0),
    PRIMARY KEY (product_id, slot)
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE TABLE buyers (
    product_id text,
    buyer_id text,
    units int NOT NULL CHECK (units >= 0),
    PRIMARY KEY (product_id, buyer_id)
);

CREATE TABLE attempts (
    attempt_id uuid PRIMARY KEY,
    product_id text NOT NULL,
    buyer_id text NOT NULL,
    quantity int NOT NULL,
    position bigint NOT NULL,
    status text NOT NULL,
    reason text NOT NULL,
    decided_at_ms bigint NOT NULL,
    hold_until_ms bigint NOT NULL
);
CREATE INDEX held ON attempts (hold_until_ms) WHERE status = 'reserved';
CREATE SEQUENCE positions CACHE 32;

CREATE FUNCTION now_ms() RETURNS bigint LANGUAGE sql AS
    'SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint';

CREATE FUNCTION put_sale(product text, stock int, per_buyer int, hold bigint, slots int)
RETURNS void LANGUAGE sql BEGIN ATOMIC
    INSERT INTO sales VALUES (product, stock, per_buyer, hold, slots);
    -- The first slots get what does not divide evenly.
    INSERT INTO stock
    SELECT product, slot, stock / slots + (slot < stock % slots)::int
    FROM generate_series(0, slots - 1) AS slot;
END;

-- Decides on an attempt, once, and returns its place in line; null without a sale. The same
-- attempt twice at the same time violates the primary key, and the loser asks again.
CREATE FUNCTION place(attempt uuid, product text, buyer text, asked int)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    terms sales;
    place bigint;
    outcome text := 'sold';
    why text := '';
    now bigint := now_ms();
    hold_until bigint := 0;
BEGIN
    SELECT position INTO place FROM attempts WHERE attempt_id = attempt;
    IF FOUND THEN
        RETURN place;
    END IF;
    SELECT * INTO terms FROM sales WHERE product_id = product;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;

    -- What is seen without a lock refuses without one; what is promised is taken below.
    IF EXISTS (SELECT FROM buyers WHERE product_id = product AND buyer_id = buyer
               AND units + asked > terms.limit_per_buyer)
       OR asked > terms.limit_per_buyer THEN
        why := 'over_buyer_limit';
    ELSIF NOT EXISTS (SELECT FROM stock WHERE product_id = product AND available >= asked) THEN
        why := 'sold_out';
    ELSE
        INSERT INTO buyers AS b VALUES (product, buyer, asked)
        ON CONFLICT (product_id, buyer_id) DO UPDATE SET units = b.units + asked
        WHERE terms.limit_per_buyer IS NULL OR b.units + asked <= terms.limit_per_buyer;
        IF NOT FOUND THEN
            why := 'over_buyer_limit';
        END IF;
    END IF;
    IF why <> '' THEN
        outcome := 'refused';
    ELSIF terms.hold_ms IS NOT NULL THEN
        outcome := 'reserved';
        hold_until := now + terms.hold_ms;
    END IF;
    place := nextval('positions');
    INSERT INTO attempts
    VALUES (attempt, product, buyer, asked, place, outcome, why, now, hold_until);

    -- The contended row comes last: its lock is then held for little more than the commit.
    IF outcome <> 'refused' AND NOT take(product, asked) THEN
        UPDATE buyers SET units = units - asked WHERE product_id = product AND buyer_id = buyer;
        UPDATE attempts SET status = 'refused', reason = 'sold_out', hold_until_ms = 0
        WHERE attempt_id = attempt;
    END IF;
    RETURN place;
END $$;

-- Gives units back whose holds have run out, at most a thousand holds at a time. Locks buyers
-- before stock, as `place` does, so that the two cannot wait for each other.
CREATE FUNCTION expire() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    due attempts[];
BEGIN
    WITH picked AS (
        SELECT attempt_id FROM attempts
        WHERE status = 'reserved' AND hold_until_ms <= now_ms()
        ORDER BY hold_until_ms LIMIT 1000
    ), expired AS (
        UPDATE attempts SET status = 'expired' FROM picked
        WHERE attempts.attempt_id = picked.attempt_id
        RETURNING attempts
    )
    SELECT array_agg(expired.attempts) INTO due FROM expired;
    UPDATE buyers SET units = buyers.units - back.units
    FROM (SELECT product_id, buyer_id, sum(quantity) AS units
          FROM unnest(due) GROUP BY 1, 2) AS back
    WHERE buyers.product_id = back.product_id AND buyers.buyer_id = back.buyer_id;
    UPDATE stock SET available = available + back.units
    FROM (SELECT product_id, position % slots AS slot, sum(quantity) AS units
          FROM unnest(due) JOIN sales USING (product_id) GROUP BY 1, 2) AS back
    WHERE stock.product_id = back.product_id AND stock.slot = back.slot;
    RETURN coalesce(cardinality(due), 0);
END $$;
