-- What a superuser does once in each database: install qml, and let a role use it.

CREATE EXTENSION qml;
SELECT qml_grant('shop', 'admin');
