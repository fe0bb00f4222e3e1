SELECT qml_enqueue_many('bench.job',
	array_fill('{"customer": 4711, "template": "welcome"}'::jsonb, ARRAY[1000]), 'bench');
