/* What worker.rs needs of what is the same in all workers: connections, claims with
 * heartbeats, errors. */
use std::env;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::sleep;
use tokio_postgres::{Client, Config, NoTls};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, PartialEq)]
pub struct Claim {
    pub id: String,
    pub attempt: i32,
}

pub static HELD: Mutex<Vec<Claim>> = Mutex::new(Vec::new()); // what this worker holds

/// In seconds; a heartbeat comes each third.
pub fn lease() -> f64 {
    env::var("QML_LEASE").ok().and_then(|text| text.parse().ok()).unwrap_or(60.0)
}

pub fn sqlstate(e: &Failure) -> &str {
    let code = e.downcast_ref().and_then(tokio_postgres::Error::code);
    code.map_or("", |code| code.code())
}

pub fn message(e: &Failure) -> String {
    let error = e.downcast_ref().and_then(tokio_postgres::Error::as_db_error);
    error.map_or_else(|| e.to_string(), |error| error.message().to_string())
}

pub async fn connect() -> Result<Client, Failure> {
    let var = |name: &str, otherwise: &str| env::var(name).unwrap_or_else(|_| otherwise.to_string());
    let (client, connection) = Config::new()
        .host(&var("PGHOST", "/var/run/postgresql"))
        .port(var("PGPORT", "5432").parse()?)
        .dbname(&var("PGDATABASE", "postgres"))
        .user(&var("PGUSER", &var("USER", "postgres")))
        .password(var("PGPASSWORD", ""))
        .connect(NoTls)
        .await?;
    tokio::spawn(connection); // an error there is told by the next query as well
    Ok(client)
}

/// Extends the leases, on a connection of its own: the others are busy.
pub async fn beat() {
    let mut db = None;
    loop {
        sleep(Duration::from_secs_f64(lease() / 3.0)).await;
        let claims = HELD.lock().unwrap().clone();
        if claims.is_empty() {
            continue;
        }
        if let Err(e) = beat_once(&mut db, &claims).await {
            eprintln!("no heartbeat: {}", message(&e));
            db = None;
        }
    }
}

async fn beat_once(db: &mut Option<Client>, claims: &[Claim]) -> Result<(), Failure> {
    if db.is_none() {
        *db = Some(connect().await?);
    }
    let (ids, attempts) = arrays(claims);
    let sql = "SELECT id::text FROM qml_heartbeat_many($1::text[]::uuid[], $2, make_interval(secs => $3))";
    let rows = db.as_ref().unwrap().query(sql, &[&ids, &attempts, &lease()]).await?;
    let kept: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    // Another worker may have those that are missing.
    HELD.lock().unwrap().retain(|claim| kept.contains(&claim.id) || !claims.contains(claim));
    Ok(())
}

/// Gives back the jobs that are held; their attempts do not count.
pub async fn release_held(db: &Client) -> Result<(), Failure> {
    let claims = HELD.lock().unwrap().clone();
    let (ids, attempts) = arrays(&claims);
    let sql = "SELECT qml_release_many($1::text[]::uuid[], $2)";
    db.execute(sql, &[&ids, &attempts]).await?;
    HELD.lock().unwrap().clear();
    Ok(())
}

fn arrays(claims: &[Claim]) -> (Vec<&str>, Vec<i32>) {
    claims.iter().map(|claim| (claim.id.as_str(), claim.attempt)).unzip()
}
