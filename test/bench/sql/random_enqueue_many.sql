INSERT INTO floor.random (queue_id, method, payload)
SELECT 1, 'bench.job', p
FROM unnest(array_fill('{"customer": 4711, "template": "welcome"}'::jsonb, ARRAY[1000])) p
RETURNING id;
