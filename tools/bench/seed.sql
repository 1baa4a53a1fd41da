-- A hundred thousand orders of a thousand users over the demo catalog, three lines each. Runs once; again is harmless.
DO $$
BEGIN
    IF (SELECT count(*) FROM orders) >= 100000 THEN RETURN; END IF;
    CREATE TEMP TABLE catalog AS
        SELECT id, name, price_minor, (row_number() OVER (ORDER BY id))::int - 1 AS n FROM products;
    CREATE TEMP TABLE seeded AS
        SELECT uuidv7(-make_interval(secs => 200000 - n)) AS id,
               md5('user' || n % 1000)::uuid AS user_id,
               n,
               now() - make_interval(secs => 200000 - n) AS at,
               (ARRAY['paid', 'shipped', 'delivered', 'cancelled', 'refunded'])[1 + n % 5]::order_status AS status
        FROM generate_series(1, 100000) AS n;
    INSERT INTO orders (id, user_id, status, currency, total_minor, version, expires_at, created_at, updated_at)
        SELECT id, user_id, status, 'EUR', 0, 2, at + interval '15 minutes', at, at FROM seeded;
    INSERT INTO order_items (order_id, line_no, product_id, name, unit_price_minor, quantity)
        SELECT s.id, line, c.id, c.name, c.price_minor, 1 + (s.n + line) % 3
        FROM seeded AS s
        CROSS JOIN generate_series(1, 3) AS line
        JOIN catalog AS c ON c.n = (s.n * 7 + line * 31) % (SELECT count(*) FROM catalog);
    UPDATE orders SET total_minor = sums.total
        FROM (SELECT order_id, sum(unit_price_minor * quantity) AS total FROM order_items GROUP BY order_id) AS sums
        WHERE orders.id = sums.order_id AND orders.total_minor = 0;
END $$;
VACUUM ANALYZE orders, order_items;
