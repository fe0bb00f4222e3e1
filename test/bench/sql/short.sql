SELECT qml_enqueue('now_is');
