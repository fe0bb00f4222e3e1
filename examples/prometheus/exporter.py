#!/usr/bin/python3
"""Serves qml_metrics() over HTTP, for Prometheus.

    exporter.py [PORT]         on localhost, port 9818 unless told otherwise

Where the database is, and as whom to connect, is said by the usual variables (PGHOST, PGDATABASE,
PGUSER and so on).  The role needs the capability `monitor`.  Each request is one query, in a
connection that is kept and made anew when it is lost.  What fails is told with status 503.

Clients are served beside each other, so that one which sends nothing keeps no other waiting; it is
disconnected after ten seconds.  Queries run one at a time.
"""

import http.server
import sys
import threading

import psycopg

connection = None
connection_lock = threading.Lock()


def metrics():
    """The text; a connection that was lost is made anew once."""
    global connection
    for again in (True, False):
        try:
            if connection is None or connection.closed:
                connection = psycopg.connect(autocommit=True, application_name="qml-exporter", client_encoding="utf8",
                                             options="-c statement_timeout=10s")
            return connection.execute("SELECT qml_metrics()").fetchone()[0]
        except psycopg.OperationalError:
            if connection is not None:
                connection.close()
            if not again:
                raise
    return None


class Handler(http.server.BaseHTTPRequestHandler):
    # Seconds for each read and write of the connection of a client.
    timeout = 10

    def do_GET(self):
        if self.path != "/metrics":
            self.send_error(404)
            return
        try:
            with connection_lock:
                body = metrics().encode()
        except psycopg.Error as error:
            self.send_error(503, explain=str(error))
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


def main():
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9818
    with http.server.ThreadingHTTPServer(("localhost", port), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
