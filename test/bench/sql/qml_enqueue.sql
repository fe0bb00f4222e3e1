SELECT qml_enqueue('bench.job', '{"customer": 4711, "template": "welcome"}', 'bench');
