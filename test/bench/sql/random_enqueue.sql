INSERT INTO floor.random (queue_id, method, payload)
VALUES (1, 'bench.job', '{"customer": 4711, "template": "welcome"}')
RETURNING id;
