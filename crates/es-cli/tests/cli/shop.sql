-- The events of a shop in some days, for the pictures of the book: orders that are placed, paid, packed and shipped,
-- more of them in the afternoons.
DELETE FROM stored_events;
DELETE FROM stored_snapshots;
DELETE FROM tracking;
CREATE TEMPORARY TABLE orders AS
WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers LIMIT 96)
SELECT n,
       printf('5b1a000000004000800000000000%04x', n) AS id,
       unixepoch('2026-03-02 07:00:00') + n / 16 * 86400 + n % 16 * 2400 + (n * n * 7919) % 9000 AS placed,
       json_array('Ada', 'Grace', 'Edsger', 'Barbara') ->> (n * 7 % 4) AS customer,
       10 + n * 37 % 90 AS price,
       1 + n % 3 AS quantity
FROM numbers;
INSERT INTO stored_events (originator_id, originator_version, topic, state)
SELECT id, version, 'shop:Order.' || name, CAST(json_set(
    json_object('timestamp', strftime('%Y-%m-%dT%H:%M:%S', placed + delay, 'unixepoch') || printf('.%06d+00:00', n * 9973 % 1000000)),
    '$.status', lower(name), '$.customer', customer,
    '$.lines', json_array(json_object('article', 'tea', 'price', printf('%d.50', price), 'quantity', CASE version WHEN 1 THEN quantity ELSE 2 END)),
    CASE version WHEN 1 THEN '$.voucher' WHEN 2 THEN '$.payment' ELSE '$.warehouse' END,
    CASE version WHEN 1 THEN 'SPRING' WHEN 2 THEN 'card' ELSE 'north' END) AS BLOB)
FROM orders JOIN (
    SELECT 1 AS version, 'Placed' AS name, 0 AS delay UNION ALL SELECT 2, 'Paid', 200 UNION ALL SELECT 3, 'Packed', 5000
    UNION ALL SELECT 4, 'Shipped', 9000)
WHERE (n * 11 + version * 5) % 13 > 1 OR version < 3
ORDER BY placed + delay;
INSERT INTO tracking VALUES ('invoices', (SELECT max(rowid) FROM stored_events)), ('statistics', 121), ('search', 288);
