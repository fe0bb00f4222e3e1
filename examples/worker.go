/* A worker for qml, with pgx 5 and what stands in worker_util.go:
 *
 *     worker NAME QUEUE...
 *     worker --enqueue QUEUE METHOD PAYLOAD    enqueues a job and prints its id
 *
 * The connection comes from PGDATABASE, PGHOST and so on; QML_LEASE is the lease in seconds.
 * SIGTERM ends the worker after its current job; it releases the others that it holds.
 */
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math"
	"math/rand"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const batch, wait = 10, 30 // the wait is in seconds; SIGTERM ends it

type job struct {
	claim
	Method  string
	Payload any
}

var names = []string{"send_receipt", "check_log"}
var methods = map[string]func(tx pgx.Tx, payload map[string]any) (any, error){
	// A job in the database: what it writes commits together with the end of the job.
	"send_receipt": func(tx pgx.Tx, payload map[string]any) (any, error) {
		var customer string
		order, _ := payload["order"].(float64)
		sql := "UPDATE orders SET receipt_sent = true WHERE id = $1 RETURNING customer"
		err := tx.QueryRow(ctx, sql, int(order)).Scan(&customer)
		if errors.Is(err, pgx.ErrNoRows) {
			err = fmt.Errorf("there is no order %v", order)
		}
		return map[string]any{"sent_to": customer}, err
	},
	// A job outside: the log of another program, any bytes, must begin with "ok".
	"check_log": func(_ pgx.Tx, payload map[string]any) (any, error) {
		text, err := os.ReadFile(fmt.Sprint(payload["path"]))
		if err == nil && !strings.HasPrefix(string(text), "ok") {
			err = errors.New(string(text))
		}
		return map[string]any{"bytes": len(text)}, err
	},
}

// The _many functions pass over a job that is not ours any more: that is no error.
func do(conn *pgx.Conn, j job) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		payload, _ := j.Payload.(map[string]any)
		result, err := methods[j.Method](tx, payload)
		if err == nil {
			_, err = tx.Exec(ctx, "SELECT qml_succeed($1, $2, $3)", j.ID, j.Attempt, result)
		}
		return err
	})
	if state := sqlstate(err); state == "40001" || state == "40P01" { // a conflict
		sql := "SELECT qml_release_many(ARRAY[$1::uuid], ARRAY[$2::int])"
		_, err = conn.Exec(ctx, sql, j.ID, j.Attempt)
	} else if err != nil {
		sql := "SELECT qml_fail_many(ARRAY[$1::uuid], ARRAY[$2::int], ARRAY[$3::text], ARRAY[$4::text])"
		_, err = conn.Exec(ctx, sql, j.ID, j.Attempt, clean(err.Error()), fmt.Sprintf("%T", err))
	}
	return err
}

// Works until SIGTERM, or until a connection is lost.
func work(stop context.Context, name string, queues []string, connected func()) error {
	conn, err := connect()
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	waiter, err := connect()
	if err != nil {
		return err
	}
	defer waiter.Close(ctx)
	err = release(conn) // what it held when the last connection was lost
	for connected(); err == nil && stop.Err() == nil; {
		var jobs []job
		sql := `SELECT coalesce(json_agg(j), '[]')
			FROM qml_fetch($1, $2::text[], $3, make_interval(secs => $4), $5) j`
		err = conn.QueryRow(ctx, sql, name, queues, batch, lease(), names).Scan(&jobs)
		for _, j := range jobs {
			held.Store(j.claim, true)
		}
		for _, j := range jobs {
			if _, ours := held.Load(j.claim); ours && err == nil && stop.Err() == nil {
				if err = do(conn, j); err == nil {
					held.Delete(j.claim)
				}
			}
		}
		if err == nil && len(jobs) == 0 {
			sql = "CALL qml_wait($1::text[], make_interval(secs => $2), $3)"
			_, err = waiter.Exec(stop, sql, queues, wait, names)
		}
	}
	if stop.Err() != nil { // which ends the wait with an error
		return release(conn)
	}
	return err
}

func enqueue(queue, method, payload string) {
	var id string
	conn, err := connect()
	if err == nil {
		sql := "SELECT qml_enqueue(queue => $1, method => $2, payload => $3)::text"
		err = conn.QueryRow(ctx, sql, queue, method, payload).Scan(&id)
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(id)
}

func main() {
	if os.Args[1] == "--enqueue" {
		enqueue(os.Args[2], os.Args[3], os.Args[4])
		return
	}
	stop, _ := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	go beat()
	for pause := 0.1; stop.Err() == nil; pause = math.Min(2*pause, 10) {
		err := work(stop, os.Args[1], os.Args[2:], func() { pause = 0.1 })
		if state := sqlstate(err); state != "" && !strings.Contains("08 53 57", state[:2]) {
			log.Fatal(err) // a mistake, such as a right that is missing
		} else if err != nil {
			log.Print("no connection: ", err)
			select {
			case <-stop.Done():
			case <-time.After(time.Duration(pause * (0.5 + rand.Float64()/2) * float64(time.Second))):
			}
		}
	}
}
