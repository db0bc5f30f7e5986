//! The program as a process, over HTTP, on SQLite and on PostgreSQL: it takes orders, is killed and started
//! again, and ends on a signal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test unwraps what it expects")]

use std::{env, process::Stdio, time::Duration};

use futures_util::future::join_all;
use reqwest::{Client, Method, Response, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, postgres::PgConnectOptions};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};
use uuid::Uuid;

/// No step takes as long: a test that waits for something that does not happen ends.
const DEADLINE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shop.db");
    let url = format!("sqlite:{}", file.display());
    timeout(DEADLINE, sell_books(&url)).await.unwrap();
    let bytes = std::fs::read(file).unwrap();
    let is_stored = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(is_stored("shop:Customer.Registered") && !is_stored("Alice"), "the state is encrypted");
}

#[tokio::test]
async fn on_postgresql() {
    if env::var_os("ES_TEST_WITHOUT_POSTGRES").is_some() {
        return;
    }
    let set =
        |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name} is not set: use `cargo xtask test`"));
    let server = PgConnectOptions::new_without_pgpass()
        .host(&set("POSTGRES_HOST"))
        .port(set("POSTGRES_PORT").parse().unwrap())
        .database(&set("POSTGRES_DBNAME"))
        .username(&set("POSTGRES_USER"))
        .password(&set("POSTGRES_PASSWORD"));
    let mut server: PgConnection = server.connect().await.unwrap();
    let database = format!("shop_{}", Uuid::new_v4().simple());
    server.execute(AssertSqlSafe(format!("CREATE DATABASE {database} TEMPLATE template0"))).await.unwrap();
    let [user, password] = [set("POSTGRES_USER"), set("POSTGRES_PASSWORD")];
    let [host, port] = [set("POSTGRES_HOST"), set("POSTGRES_PORT")];
    let url = format!("postgres://{user}:{password}@{host}:{port}/{database}");
    let outcome = tokio::spawn(async move { timeout(DEADLINE, sell_books(&url)).await.unwrap() }).await;
    server.execute(AssertSqlSafe(format!("DROP DATABASE {database} WITH (FORCE)"))).await.unwrap();
    outcome.unwrap();
}

async fn sell_books(url: &str) {
    let shop = Program::start(url).await;
    let customer = Uuid::now_v7();
    shop.put(&format!("/customers/{customer}"), json!({"name": "Alice"})).await;
    shop.send(Method::POST, "/stock/book", json!({"pieces": 5})).await.error_for_status().unwrap();

    // The process manager confirms an order, and rejects one for which no stock is left.
    let mut events = shop.events(0).await;
    let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
    let order = |pieces: u32| json!({"customer": customer, "item": "book", "pieces": pieces});
    shop.put(&format!("/orders/{first}"), order(3)).await;
    let placed = events.next().await.unwrap().1;
    assert_eq!((&placed["event"], &placed["order"]), (&json!("placed"), &json!(first)));
    let confirmed = events.next().await.unwrap().1;
    assert_eq!((&confirmed["event"], &confirmed["order"]), (&json!("confirmed"), &json!(first)));
    assert!(placed["correlation_id"].is_string());
    assert_eq!(confirmed["correlation_id"], placed["correlation_id"], "the metadata are propagated");

    shop.put(&format!("/orders/{second}"), order(3)).await;
    assert_eq!(events.next().await.unwrap().1["event"], "placed");
    let (position, rejected) = events.next().await.unwrap();
    assert_eq!((&rejected["event"], &rejected["reason"]), (&json!("rejected"), &json!("2 pieces are left")));
    let rows = shop.orders(position).await;
    let row = |index: usize| (&rows[index]["id"], &rows[index]["status"], &rows[index]["reason"]);
    assert_eq!(row(0), (&json!(second), &json!("rejected"), &json!("2 pieces are left")));
    assert_eq!(row(1), (&json!(first), &json!("confirmed"), &Value::Null));

    // Repeated and refused commands record nothing.
    let repeated = shop.put(&format!("/orders/{first}"), order(3)).await;
    assert_eq!(repeated["position"], Value::Null);
    let again = shop.send(Method::PUT, &format!("/customers/{customer}"), json!({"name": "Bob"})).await;
    assert_eq!(again.status(), StatusCode::CONFLICT);
    let stranger = json!({"customer": Uuid::now_v7(), "item": "book", "pieces": 1});
    let refused = shop.send(Method::PUT, &format!("/orders/{}", Uuid::now_v7()), stranger).await;
    assert_eq!(refused.status(), StatusCode::CONFLICT);

    let metrics = shop.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains(r#"es_processor_position{processor="fulfilment"}"#), "{metrics}");
    assert!(metrics.contains("shop_orders_total 3"), "{metrics}");
    assert_eq!(shop.get("/health").await.status(), StatusCode::OK);

    // Acknowledged orders survive a kill, and each gets one outcome.
    let placed: Vec<_> = (0..20).map(|_| Uuid::now_v7()).collect();
    let paths: Vec<_> = placed.iter().map(|id| format!("/orders/{id}")).collect();
    join_all(paths.iter().map(|path| shop.put(path, order(1)))).await;
    shop.kill(Signal::KILL).await;

    let shop = Program::start(url).await;
    let mut events = shop.events(position).await;
    let (mut outcomes, mut last) = (Vec::new(), position);
    while outcomes.len() < placed.len() {
        let (id, event) = events.next().await.unwrap();
        assert!(id > last);
        last = id;
        if event["event"] != "placed" {
            outcomes.push((event["order"].clone(), event["event"].clone()));
        }
    }
    assert!(placed.iter().all(|id| outcomes.iter().any(|(order, _)| *order == json!(id))));
    assert_eq!(outcomes.iter().filter(|(_, outcome)| outcome == "confirmed").count(), 2);
    assert_eq!(shop.get("/stock/book").await.text().await.unwrap(), "0");
    let rows = shop.orders(last).await;
    let count = |status: &str| rows.iter().filter(|row| row["status"] == status).count();
    assert_eq!((rows.len(), count("confirmed"), count("rejected")), (22, 3, 19));

    // A signal ends the streams and then the program.
    let process = shop.kill(Signal::TERM).await;
    assert!(events.next().await.is_none());
    assert!(process.success(), "{process}");
}

/// The program, and a client.
struct Program {
    process: Child,
    address: String,
    client: Client,
}

impl Program {
    async fn start(url: &str) -> Self {
        let environment = [
            ("DATABASE_URL", url),
            ("ADDRESS", "127.0.0.1:0"),
            ("CIPHER_KEY", "AAECAwQFBgcICQoLDA0ODw=="),
            ("COMPRESSOR_TOPIC", "zlib"),
            ("IS_SNAPSHOTTING_ENABLED", "y"),
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
        command.env_clear().envs(environment).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("the program ended");
        let address = line.strip_prefix("listening on ").unwrap().to_owned();
        Self { process, address, client: Client::new() }
    }

    async fn send(&self, method: Method, path: &str, body: Value) -> Response {
        self.client
            .request(method, format!("http://{}{path}", self.address))
            .json(&body)
            .send()
            .await
            .unwrap()
    }

    /// Sends a command, which succeeds.
    async fn put(&self, path: &str, body: Value) -> Value {
        self.send(Method::PUT, path, body).await.error_for_status().unwrap().json().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.client.get(format!("http://{}{path}", self.address)).send().await.unwrap()
    }

    /// The list of orders, with the effects of all events up to a position.
    async fn orders(&self, position: i64) -> Vec<Value> {
        let list = self.get(&format!("/orders?position={position}")).await;
        list.error_for_status().unwrap().json().await.unwrap()
    }

    async fn events(&self, position: i64) -> Events {
        let request = self.client.get(format!("http://{}/events", self.address));
        let response = request.header("Last-Event-ID", position.to_string()).send().await.unwrap();
        Events { response, text: String::new() }
    }

    /// Sends a signal, and waits for the end of the program.
    async fn kill(mut self, signal: Signal) -> std::process::ExitStatus {
        let id = Pid::from_raw(self.process.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(id, signal).unwrap();
        self.process.wait().await.unwrap()
    }
}

/// A stream of server-sent events.
struct Events {
    response: Response,
    text: String,
}

impl Events {
    /// Returns id and data of the next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<(i64, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name| event.lines().find_map(|line: &str| line.strip_prefix(name));
                let event = field("id: ").zip(field("data: "));
                let event =
                    event.map(|(id, data)| (id.parse().unwrap(), serde_json::from_str(data).unwrap()));
                self.text = rest.to_owned();
                match event {
                    Some(event) => return Some(event),
                    None => continue, // a comment, which keeps the connection alive
                }
            }
            let chunk = self.response.chunk().await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}
