/* A worker for qml, with tokio-postgres and what stands in worker_util.rs and Cargo.toml:
 *
 *     worker NAME QUEUE...
 *     worker --enqueue QUEUE METHOD PAYLOAD    enqueues a job and prints its id
 *
 * The connection comes from PGDATABASE, PGHOST and so on; QML_LEASE is the lease in seconds.
 * SIGTERM ends the worker after its current job; it releases the others that it holds.
 */
mod worker_util;

use serde_json::{json, Value};
use std::time::{Duration, SystemTime};
use std::{env, fs};
use tokio::signal::unix::{signal, SignalKind};
use tokio::{sync::watch, time::sleep};
use tokio_postgres::{types::ToSql, Client, Transaction};
use worker_util::{beat, connect, lease, message, release_held, sqlstate, Claim, Failure, HELD};

const BATCH: i32 = 10;
const WAIT: f64 = 30.0; // seconds; SIGTERM ends it
const METHODS: &[&str] = &["send_receipt", "check_log"];

/// A job in the database: what it writes commits together with the end of the job.
async fn send_receipt(tx: &Transaction<'_>, payload: &Value) -> Result<Value, Failure> {
    let order = payload["order"].as_i64().ok_or("no order in the payload")?;
    let sql = "UPDATE orders SET receipt_sent = true WHERE id = $1::bigint RETURNING customer";
    let row = tx.query_opt(sql, &[&order]).await?;
    let row = row.ok_or_else(|| format!("there is no order {order}"))?;
    Ok(json!({ "sent_to": row.get::<_, String>(0) }))
}

/// A job outside: the log of another program, any bytes, must begin with "ok".
fn check_log(payload: &Value) -> Result<Value, Failure> {
    let path = payload["path"].as_str().ok_or("no path in the payload")?;
    let log = String::from_utf8_lossy(&fs::read(path)?).into_owned();
    if !log.starts_with("ok") {
        return Err(log.into());
    }
    Ok(json!({ "bytes": log.len() }))
}

/// Does a job and ends it, in one transaction. An error rolls it back.
async fn attempt(db: &mut Client, claim: &Claim, method: &str, payload: &Value) -> Result<(), Failure> {
    let tx = db.transaction().await?;
    let result = match method {
        "send_receipt" => send_receipt(&tx, payload).await?,
        _ => check_log(payload)?,
    };
    let sql = "SELECT qml_succeed($1::text::uuid, $2, $3)";
    tx.execute(sql, &[&claim.id, &claim.attempt, &result]).await?;
    Ok(tx.commit().await?)
}

/// The _many functions pass over a job that is not ours any more: that is no error.
async fn do_job(db: &mut Client, claim: &Claim, method: &str, payload: &Value) -> Result<(), Failure> {
    if let Err(e) = attempt(db, claim, method, payload).await {
        if ["40001", "40P01"].contains(&sqlstate(&e)) {
            let sql = "SELECT qml_release_many(ARRAY[$1::text::uuid], ARRAY[$2::int])"; // a conflict
            db.execute(sql, &[&claim.id, &claim.attempt]).await?;
        } else {
            let text = message(&e).replace('\0', ""); // which PostgreSQL does not accept
            let sql = "SELECT qml_fail_many(ARRAY[$1::text::uuid], ARRAY[$2::int], ARRAY[$3::text])";
            db.execute(sql, &[&claim.id, &claim.attempt, &text]).await?;
        }
    }
    Ok(())
}

/// Works until SIGTERM, or until a connection is lost.
async fn work(
    stop: &mut watch::Receiver<bool>,
    name: &str,
    queues: &[String],
    pause: &mut f64,
) -> Result<(), Failure> {
    let (mut db, waiter) = (connect().await?, connect().await?);
    release_held(&db).await?; // what it held when the last connection was lost
    *pause = 0.1;
    while !*stop.borrow() {
        let sql = "SELECT id::text, attempt, method, payload
            FROM qml_fetch($1, $2::text[], $3, make_interval(secs => $4), $5)";
        let jobs = db.query(sql, &[&name, &queues, &BATCH, &lease(), &METHODS]).await?;
        if jobs.is_empty() {
            let sql = "CALL qml_wait($1::text[], make_interval(secs => $2), $3)";
            let args: [&(dyn ToSql + Sync); 3] = [&queues, &WAIT, &METHODS];
            tokio::select! {
                waited = waiter.execute(sql, &args) => { waited?; }
                _ = stop.changed() => {}
            }
        }
        let claims = jobs.iter().map(|job| Claim { id: job.get(0), attempt: job.get(1) });
        HELD.lock().unwrap().extend(claims.clone());
        for (job, claim) in jobs.iter().zip(claims) {
            if *stop.borrow() || !HELD.lock().unwrap().contains(&claim) {
                continue;
            }
            do_job(&mut db, &claim, job.get(2), &job.get(3)).await?;
            HELD.lock().unwrap().retain(|held| *held != claim);
        }
    }
    release_held(&db).await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = env::args().skip(1).collect();
    if args[0] == "--enqueue" {
        let sql = "SELECT qml_enqueue($2, $3::text::jsonb, queue => $1)::text";
        let row = connect().await?.query_one(sql, &[&args[1], &args[2], &args[3]]).await?;
        println!("{}", row.get::<_, String>(0));
        return Ok(());
    }
    let (stopping, mut stop) = watch::channel(false);
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        stopping.send(true)
    });
    tokio::spawn(beat());
    let mut pause = 0.1;
    while !*stop.borrow() {
        if let Err(e) = work(&mut stop, &args[0], &args[1..], &mut pause).await {
            // An SQLSTATE of another class is a mistake, such as a right that is missing.
            if !["", "08", "53", "57"].contains(&sqlstate(&e).get(..2).unwrap_or("")) {
                return Err(e);
            }
            eprintln!("no connection: {}", message(&e));
            let random = SystemTime::UNIX_EPOCH.elapsed()?.subsec_micros() as f64 / 1e6;
            tokio::select! {
                _ = sleep(Duration::from_secs_f64(pause * (0.5 + random / 2.0))) => {}
                _ = stop.changed() => {}
            }
            pause = f64::min(2.0 * pause, 10.0);
        }
    }
    Ok(())
}
