/* What worker.go needs of what is the same in all workers: connections, claims with
 * heartbeats, errors, texts. */
package main

import (
	"context"
	"errors"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var ctx = context.Background()
var held sync.Map // the claims that this worker holds

type claim struct {
	ID      string
	Attempt int32
}

// In seconds; a heartbeat comes each third.
func lease() float64 {
	if seconds, err := strconv.ParseFloat(os.Getenv("QML_LEASE"), 64); err == nil {
		return seconds
	}
	return 60
}

func connect() (*pgx.Conn, error) { // without named statements, which some poolers do not support
	return pgx.Connect(ctx, "default_query_exec_mode=cache_describe")
}

func sqlstate(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// Without zero bytes and what is not UTF-8, which PostgreSQL does not accept.
func clean(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "?"), "\x00", "")
}

func claims() (ids []string, attempts []int32) {
	held.Range(func(key, _ any) bool {
		ids, attempts = append(ids, key.(claim).ID), append(attempts, key.(claim).Attempt)
		return true
	})
	return ids, attempts
}

// Gives back the jobs that are held; their attempts do not count.
func release(conn *pgx.Conn) (err error) {
	ids, attempts := claims()
	if len(ids) > 0 {
		_, err = conn.Exec(ctx, "SELECT qml_release_many($1::text[]::uuid[], $2)", ids, attempts)
	}
	for i := 0; i < len(ids) && err == nil; i++ {
		held.Delete(claim{ids[i], attempts[i]})
	}
	return err
}

// Extends the leases again and again, on a connection of its own: the others are busy.
func beat() {
	for range time.Tick(time.Duration(lease() / 3 * float64(time.Second))) {
		if err := beatOnce(); err != nil {
			log.Print("no heartbeat: ", err)
		}
	}
}

func beatOnce() error {
	ids, attempts := claims()
	if len(ids) == 0 {
		return nil
	}
	conn, err := connect()
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	kept := map[string]bool{}
	sql := `SELECT coalesce(json_object_agg(id, true), '{}')
		FROM qml_heartbeat_many($1::text[]::uuid[], $2, make_interval(secs => $3))`
	err = conn.QueryRow(ctx, sql, ids, attempts, lease()).Scan(&kept)
	for i := 0; i < len(ids) && err == nil; i++ {
		if !kept[ids[i]] {
			held.Delete(claim{ids[i], attempts[i]}) // it is not ours any more
		}
	}
	return err
}
