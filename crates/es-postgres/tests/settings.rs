//! Every setting does what it says, and no name, role or server can make more happen than an error.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test panics where it fails")]

mod common;

use std::{env, error::Error, process::Command};

use common::prelude::*;

/// An error with all its causes.
fn whole(error: &PersistenceError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(" {error} {error:?}"));
        cause = error.source();
    }
    text
}

// Durations.

/// The story: a connect timeout of `Duration::MAX` was added to the current time, which overflows, when a
/// connection was lost; so was a poll interval that is doubled after a failure.
#[tokio::test]
async fn any_duration_is_accepted() {
    for duration in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_nanos(u64::MAX)] {
        let schema = Schema::create().await;
        let options = schema.options().ordering(NotificationOrdering::Parallel).fence_timeout(duration);
        let options = options.connect_timeout(duration).response_timeout(duration).poll_interval(duration);
        let options = options.stall_warning(duration).conn_max_age(duration).notify(true);
        let datastore = options.open().await.unwrap();
        let recorder = datastore.process_recorder("bank").await.unwrap();
        let mut subscription = recorder.subscribe(0, []).poll_interval(duration);
        let terminate = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE application_name = 'es-postgres' AND query LIKE '%{}%' AND pid <> pg_backend_pid()",
            schema.name
        );
        for version in 1..=2 {
            let event = event(Uuid::from_u128(1), version);
            let ids = recorder.insert_events(vec![event]).await.unwrap();
            let page = subscription.next_page().await.unwrap().expect("the recorder is open");
            assert_eq!(ids, [page.position]);
            assert!(scalar::<i64>(&mut schema.connect().await, &terminate).await > 0);
        }
        recorder.insert_tracking(Tracking::new("bank", 1).unwrap()).await.unwrap();
        recorder.wait("bank", 1, duration).await.unwrap();
        recorder.close().await.unwrap();
    }
}

/// The story: the server counts milliseconds in 32 bits, and refused each statement that set more.
#[tokio::test]
async fn timeouts_that_the_server_does_not_take_are_refused() {
    let schema = Schema::create().await;
    let longest = PostgresOptions::MAX_SERVER_TIMEOUT;
    let options = schema.options().lock_timeout(longest).idle_in_transaction_session_timeout(longest);
    let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
    recorder.insert_events(vec![first()]).await.unwrap();
    for longer in [longest + Duration::from_nanos(1), Duration::from_secs(4_294_967_295), Duration::MAX] {
        let options = schema.options();
        let lock = options.clone().lock_timeout(longer).open().await.unwrap_err();
        let idle = options.idle_in_transaction_session_timeout(longer).open().await.unwrap_err();
        for (error, name) in [(lock, "lock_timeout"), (idle, "idle_in_transaction_session_timeout")] {
            assert_eq!(error.kind(), ErrorKind::Programming, "{error}");
            assert!(error.to_string().contains(name) && error.to_string().contains("2147483"), "{error}");
        }
    }
}

// The environment of the process.

const LIBPQ_VARIABLES: [(&str, &str); 23] = [
    ("PGHOST", "nowhere.invalid"),
    ("PGHOSTADDR", "192.0.2.1"),
    ("PGPORT", "1"),
    ("PGUSER", "nobody"),
    ("PGPASSWORD", "wrong"),
    ("PGDATABASE", "none"),
    ("PGSSLMODE", "verify-full"),
    ("PGSSLROOTCERT", "/nonexistent/root.crt"),
    ("PGSSLCRL", "/nonexistent/crl"),
    ("PGSSLNEGOTIATION", "direct"),
    ("PGREQUIRESSL", "1"),
    ("PGAPPNAME", "hostile"),
    ("PGPASSFILE", "/nonexistent/pgpass"),
    ("PGSERVICE", "hostile"),
    ("PGSERVICEFILE", "/nonexistent/service"),
    ("PGSYSCONFDIR", "/nonexistent"),
    ("PGTZ", "Mars"),
    ("PGDATESTYLE", "hostile"),
    ("PGCLIENTENCODING", "LATIN1"),
    ("PGCONNECT_TIMEOUT", "0"),
    ("PGTARGETSESSIONATTRS", "standby"),
    ("PGCHANNELBINDING", "require"),
    ("PGREQUIREAUTH", "none"),
];

/// Set in the processes that [`run_with`] starts.
const CHILD: &str = "ES_TEST_CHILD";

/// Runs a test of this file, which does nothing otherwise, in a process with these variables.
fn run_with(variables: &[(&str, &str)], test: &str) {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", "--nocapture", test]).env(CHILD, "").envs(variables.iter().copied());
    let output = child.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let told = format!("{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

/// The story: the driver takes from the environment what it is not given. With `PGSSLMODE=verify-full` or
/// `PGSSLROOTCERT`, connecting failed; with `PGPASSWORD`, a program without a password connected.
#[tokio::test]
async fn variables_of_libpq_have_no_effect() {
    let schema = Schema::create().await;
    let mut variables = LIBPQ_VARIABLES.to_vec();
    variables.push(("ES_TEST_SCHEMA", &schema.name));
    run_with(&variables, "within_variables_of_libpq");
    let recorder = schema.open().await.application_recorder("bank").await.unwrap();
    assert_eq!(recorder.max_notification_id().await.unwrap(), Some(1));
}

#[tokio::test]
async fn within_variables_of_libpq() {
    if env::var_os(CHILD).is_none() {
        return;
    }
    let options = common::Server::from_environment().options().schema(env::var("ES_TEST_SCHEMA").unwrap());
    let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
    recorder.insert_events(vec![first()]).await.unwrap();
}

#[test]
fn a_password_of_the_environment_is_not_used() {
    let password = env::var("POSTGRES_PASSWORD").unwrap();
    run_with(&[("PGPASSWORD", &password)], "without_a_password");
}

#[tokio::test]
async fn without_a_password() {
    if env::var_os(CHILD).is_none() {
        return;
    }
    let server = common::Server::from_environment();
    let options = || {
        let options = PostgresOptions::new(&server.dbname).host(&server.host).port(server.port);
        options.user(&server.user)
    };
    // Where the server trusts its clients, both can connect.
    let (without, wrong) = (options().open().await, options().password("wrong").open().await);
    assert_eq!(without.is_ok(), wrong.is_ok());
}

/// The driver obeys these, and gives no way to override them.
#[test]
fn variables_that_cannot_be_overridden_are_refused() {
    run_with(&[("PGOPTIONS", "-c work_mem=64")], "refuses_a_variable");
    if cfg!(feature = "tls") {
        run_with(&[("PGSSLCERT", "/nonexistent/client.crt")], "refuses_a_variable");
        run_with(&[("PGSSLKEY", "/nonexistent/client.key")], "refuses_a_variable");
    }
}

#[tokio::test]
async fn refuses_a_variable() {
    if env::var_os(CHILD).is_none() {
        return;
    }
    let options = common::Server::from_environment().options();
    let error = options.clone().open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming);
    let set = ["PGOPTIONS", "PGSSLCERT", "PGSSLKEY"].map(|name| env::var_os(name).map(|_| name));
    assert!(error.to_string().contains(set.into_iter().flatten().next().unwrap()), "{error}");
    // Certificates do not matter where nothing is encrypted.
    let unencrypted = options.sslmode("disable").unwrap().open().await;
    assert_eq!(unencrypted.is_ok(), env::var_os("PGOPTIONS").is_none());
}

// Texts of errors.

/// The story: an error said `… at line 664: … at line 664`. The driver's text repeats that of its source, and
/// adds the line of the server's source; its debug text showed the values of a row that a constraint
/// refused.
#[tokio::test]
async fn errors_repeat_nothing_and_show_no_row() {
    let schema = Schema::create().await;
    let recorder = schema.open().await.application_recorder("bank").await.unwrap();
    let events = schema.table("bank_events");
    let mut connection = schema.connect().await;
    run(
        &mut connection,
        &format!("ALTER TABLE {events} ADD CONSTRAINT no_ten CHECK (originator_version < 10)"),
    )
    .await;
    let mut secret = event(Uuid::from_u128(1), 10);
    secret.state = es_core::Bytes::from_static(b"a secret");
    let refused = recorder.insert_events(vec![secret]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Integrity);
    run(&mut connection, &format!("DROP TABLE {events}")).await;
    let missing = recorder.max_notification_id().await.unwrap_err();
    let unreachable = PostgresOptions::new("events").host("127.0.0.1").port(1).open().await.unwrap_err();
    for (error, words) in [
        (&refused, vec!["23514", "no_ten"]),
        (&missing, vec!["42P01", "bank_events"]),
        (&unreachable, vec!["127.0.0.1:1", "refused"]),
    ] {
        let mut texts = vec![error.to_string()];
        let mut cause = error.source();
        while let Some(error) = cause {
            texts.push(error.to_string());
            cause = error.source();
        }
        for (index, text) in texts.iter().enumerate() {
            assert!(texts[index + 1..].iter().all(|cause| !text.contains(cause)), "{texts:?}");
        }
        let whole = whole(error);
        assert!(words.iter().all(|word| whole.contains(word)), "{whole}");
        assert!(!whole.contains("at line") && !whole.contains("secret"), "{whole}");
        assert!(!whole.contains("6120736563726574"), "{whole}");
    }
}

/// The text of a refused connection did not have the reason, which only its source had.
#[tokio::test]
async fn the_error_of_a_connection_has_its_reason() {
    let server = common::Server::from_environment();
    let password = server.options().password("wrong").open().await.unwrap_err();
    let user = server.options().user("no_such_user").password("wrong").open().await.unwrap_err();
    let unknown = PostgresOptions::new("no_such_database").host(&server.host).port(server.port);
    let database = unknown.user(&server.user).password(&server.password).open().await.unwrap_err();
    let unreachable = PostgresOptions::new("events").host("127.0.0.1").port(1).open().await.unwrap_err();
    for (error, words) in [
        (&password, ["28P01", "password authentication failed"]),
        (&user, ["28P01", "no_such_user"]),
        (&database, ["3D000", "no_such_database"]),
        (&unreachable, ["127.0.0.1:1", "refused"]),
    ] {
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
        assert!(error.is_transient() == (words[1] == "refused"), "{error:?}");
    }
}

// Connections.

#[tokio::test]
async fn a_connection_of_age_zero_serves_one_transaction() {
    let schema = Schema::create().await;
    let made = Arc::new(AtomicUsize::new(0));
    let (counter, password) = (Arc::clone(&made), schema.server.password.clone());
    let options = schema.options().conn_max_age(Duration::ZERO).password_provider(move || {
        counter.fetch_add(1, Atomic::SeqCst);
        let password = password.clone();
        async move { Ok::<_, std::io::Error>(password) }
    });
    let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
    let before = made.load(Atomic::SeqCst);
    recorder.insert_events(vec![first()]).await.unwrap();
    recorder.insert_events(vec![first()]).await.unwrap();
    recorder.max_notification_id().await.unwrap();
    assert_eq!(made.load(Atomic::SeqCst) - before, 3);

    // Without an age, one connection serves them all.
    let options = schema.options().pre_ping(true).conn_max_age(None);
    let made = Arc::new(AtomicUsize::new(0));
    let (counter, password) = (Arc::clone(&made), schema.server.password.clone());
    let options = options.password_provider(move || {
        counter.fetch_add(1, Atomic::SeqCst);
        let password = password.clone();
        async move { Ok::<_, std::io::Error>(password) }
    });
    let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
    recorder.insert_events(vec![first()]).await.unwrap();
    recorder.max_notification_id().await.unwrap();
    assert_eq!(made.load(Atomic::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pool_and_its_queue_are_bounded() {
    let schema = Schema::create().await;
    let options = schema.options().pool_size(1).max_overflow(0).max_waiting(1);
    let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
    let events = schema.table("bank_events");
    let mut holder = schema.connect().await;
    run(&mut holder, &format!("BEGIN; LOCK TABLE {events}")).await;
    let reading = || {
        let recorder = recorder.clone();
        tokio::spawn(async move { recorder.max_notification_id().await })
    };
    let first = reading();
    let waiting_for_lock =
        format!("SELECT EXISTS (SELECT FROM pg_locks WHERE relation = '{events}'::regclass AND NOT granted)");
    until(&mut schema.connect().await, &waiting_for_lock).await;
    // One has the connection; of the others one waits, and one is refused (after it tried again).
    let (second, third) = (reading(), reading());
    let refused = tokio::select! { refused = second => refused, refused = third => refused };
    let refused = refused.unwrap().unwrap_err();
    assert_eq!((refused.kind(), refused.is_transient()), (ErrorKind::Operational, true));
    run(&mut holder, "COMMIT").await;
    first.await.unwrap().unwrap();
}

/// Callers that need several connections concurrently mostly need them again: opening them each time once
/// took most of the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_stay_open_between_bursts() {
    const READERS: usize = 4;
    let schema = Schema::create().await;
    let made = Arc::new(AtomicUsize::new(0));
    let (counter, password) = (Arc::clone(&made), schema.server.password.clone());
    let options = schema.options().pool_size(1).max_overflow(READERS - 1).password_provider(move || {
        counter.fetch_add(1, Atomic::SeqCst);
        let password = password.clone();
        async move { Ok::<_, std::io::Error>(password) }
    });
    let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
    let events = schema.table("bank_events");
    let mut holder = schema.connect().await;
    for _ in 0..3 {
        run(&mut holder, &format!("BEGIN; LOCK TABLE {events}")).await;
        let reading: Vec<_> = (0..READERS)
            .map(|_| {
                let recorder = recorder.clone();
                tokio::spawn(async move { recorder.max_notification_id().await })
            })
            .collect();
        let all_wait = format!(
            "SELECT count(*) = {READERS} FROM pg_locks WHERE relation = '{events}'::regclass AND NOT granted"
        );
        until(&mut schema.connect().await, &all_wait).await;
        run(&mut holder, "COMMIT").await;
        for read in reading {
            read.await.unwrap().unwrap();
        }
    }
    assert_eq!(made.load(Atomic::SeqCst), READERS);
}

/// Accepted writes once failed when readers had all connections for longer than the timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_writes_wait_for_readers() {
    let schema = Schema::create().await;
    let (sender, mut groups) = tokio::sync::mpsc::unbounded_channel();
    let options = schema.options().pool_size(1).max_overflow(0).connect_timeout(Duration::from_millis(300));
    let options = options.hooks(GroupsFormed(sender));
    let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
    let events = schema.table("bank_events");
    let mut holder = schema.connect().await;
    run(&mut holder, &format!("BEGIN; LOCK TABLE {events}")).await;
    let reading = || {
        let recorder = recorder.clone();
        tokio::spawn(async move { recorder.max_notification_id().await })
    };
    let first_reader = reading();
    let waiting_for_lock =
        format!("SELECT EXISTS (SELECT FROM pg_locks WHERE relation = '{events}'::regclass AND NOT granted)");
    until(&mut schema.connect().await, &waiting_for_lock).await;
    let inserting = tokio::spawn({
        let recorder = recorder.clone();
        async move { recorder.insert_events(vec![first()]).await }
    });
    groups.recv().await.unwrap();
    // One that comes later, and so gives up later than a writer would.
    let late = reading().await.unwrap().unwrap_err();
    assert!(late.to_string().contains("all connections of the pool are in use"), "{late}");
    run(&mut holder, "COMMIT").await;
    first_reader.await.unwrap().unwrap();
    assert_eq!(inserting.await.unwrap().unwrap(), [1]);
}

struct GroupsFormed(tokio::sync::mpsc::UnboundedSender<()>);

impl FaultHooks for GroupsFormed {
    fn reached(&self, point: FaultPoint) -> HookFuture<'_> {
        if point == FaultPoint::GroupFormed {
            let _ = self.0.send(());
        }
        Box::pin(async {})
    }
}

/// In a stricter transaction the snapshot is older than the lock: a conflict was once met by the
/// index instead, and tried again for seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_roles_default_isolation_is_not_the_appends() {
    let schema = Schema::create().await;
    schema.open().await.application_recorder("bank").await.unwrap();
    let role = Role::create(&schema).await;
    let mut connection = schema.connect().await;
    let grants = format!(
        "ALTER ROLE {1} SET default_transaction_isolation = 'repeatable read'; \
         GRANT ALL ON ALL TABLES IN SCHEMA {0} TO {1}; GRANT ALL ON ALL SEQUENCES IN SCHEMA {0} TO {1}",
        schema.name, role.name
    );
    run(&mut connection, &grants).await;
    let datastore = role.server.options().schema(&schema.name).open().await.unwrap();
    let recorder = datastore.application_recorder("bank").await.unwrap();
    let (events, id) = (schema.table("bank_events"), Uuid::new_v4());
    run(&mut connection, &format!("BEGIN; LOCK TABLE {events} IN EXCLUSIVE MODE")).await;
    let append = tokio::spawn({
        let recorder = recorder.clone();
        async move { recorder.insert_events(vec![event(id, 1)]).await }
    });
    let waiting =
        format!("SELECT EXISTS (SELECT FROM pg_locks WHERE relation = '{events}'::regclass AND NOT granted)");
    until(&mut schema.connect().await, &waiting).await;
    run(&mut connection, &format!("INSERT INTO {events} VALUES ('{id}', 1, 'bank:Other', ''); COMMIT")).await;
    assert!(append.await.unwrap().unwrap_err().is_conflict());
    assert_eq!(recorder.insert_events(vec![first()]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_password_that_does_not_come_is_not_waited_for_without_end() {
    let schema = Schema::create().await;
    let options = schema.options().connect_timeout(Duration::from_millis(50));
    let options = options.password_provider(std::future::pending::<Result<String, std::io::Error>>);
    let late = options.open().await.unwrap_err();
    assert_eq!((late.kind(), late.is_transient()), (ErrorKind::Operational, true));
}

#[tokio::test]
async fn a_pool_without_connections_makes_no_sense() {
    let options = Schema::create().await.options().pool_size(0).max_overflow(0);
    assert_eq!(options.open().await.unwrap_err().kind(), ErrorKind::Programming);
}

#[tokio::test]
async fn the_session_timeout_is_the_connections() {
    let schema = Schema::create().await;
    let options = schema.options().idle_in_transaction_session_timeout(Duration::from_secs(7));
    let datastore = options.open().await.unwrap();
    let recorder = datastore.application_recorder("bank").await.unwrap();
    // A trigger sees the settings of the session that inserts.
    let events = schema.table("bank_events");
    let spy = schema.table("spy");
    run(
        &mut schema.connect().await,
        &format!(
            "CREATE TABLE {spy} (setting text); \
             CREATE FUNCTION {0}.spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             INSERT INTO {spy} VALUES (current_setting('idle_in_transaction_session_timeout')); RETURN NULL; END $$; \
             CREATE TRIGGER spy AFTER INSERT ON {events} EXECUTE FUNCTION {0}.spy()",
            schema.name
        ),
    )
    .await;
    recorder.insert_events(vec![first()]).await.unwrap();
    let setting: String = scalar(&mut schema.connect().await, &format!("SELECT setting FROM {spy}")).await;
    assert_eq!(setting, "7s");
}

#[tokio::test]
async fn the_first_host_that_accepts_writes_is_used() {
    let database = Database::create().await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let server = &database.server;
    let hosts = [("127.0.0.1", closed), (server.host.as_str(), server.port)];
    let datastore = server.options().hosts(hosts).open().await.unwrap();
    let recorder = datastore.application_recorder("bank").await.unwrap();
    recorder.insert_events(vec![first()]).await.unwrap();

    // An application with several hosts does not use a server whose sessions are read-only.
    let read_only = format!("ALTER DATABASE {} SET default_transaction_read_only = on", server.dbname);
    run(&mut server.connect().await, &read_only).await;
    let refused = server.options().hosts(hosts).open().await.unwrap_err();
    assert_eq!((refused.kind(), refused.is_transient()), (ErrorKind::Operational, true), "{refused:?}");
    // With one host there is nothing to choose, and reading works.
    server.options().open().await.unwrap();
}

/// A server that has stopped without notice took the whole connect timeout from each failover.
#[tokio::test]
async fn a_host_that_does_not_respond_does_not_delay_the_next_one() {
    let database = Database::create().await;
    // The system accepts connections to it, and no process reads them.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = &database.server;
    let hosts = [("127.0.0.1", silent.local_addr().unwrap().port()), (server.host.as_str(), server.port)];
    let options = server.options().hosts(hosts).connect_timeout(Duration::from_secs(3_600));
    let opened = tokio::time::timeout(Duration::from_secs(60), options.open()).await;
    opened.expect("the silent host holds up the other").unwrap();
}

/// Ends the read-only state of a database when an outcome is in doubt.
struct FailOver(common::Server);

impl FaultHooks for FailOver {
    fn reached(&self, point: FaultPoint) -> HookFuture<'_> {
        Box::pin(async move {
            if point == FaultPoint::OutcomeDoubtful {
                let mut connection = common::Server::from_environment().connect().await;
                let writable =
                    format!("ALTER DATABASE {} RESET default_transaction_read_only", self.0.dbname);
                run(&mut connection, &writable).await;
            }
        })
    }
}

#[tokio::test]
async fn the_host_that_accepts_writes_is_found_again() {
    let database = Database::create().await;
    let server = &database.server;
    let hosts = [(server.host.as_str(), server.port), ("localhost", server.port)];
    let options = server.options().hosts(hosts).hooks(FailOver(server.clone()));
    let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
    recorder.insert_events(vec![first()]).await.unwrap();
    let mut admin = common::Server::from_environment().connect().await;
    let fail = format!(
        "ALTER DATABASE {0} SET default_transaction_read_only = on; \
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{0}'",
        server.dbname
    );
    run(&mut admin, &fail).await;
    assert_eq!(recorder.insert_events(vec![first()]).await.unwrap(), [2]);
}

#[test]
fn hosts_are_listed_as_in_the_environment() {
    let options = || PostgresOptions::new("events");
    let shown = format!("{:?}", options().host_list("a, b", "5432,5433").unwrap());
    assert!(shown.contains(r#"[("a", 5432), ("b", 5433)]"#), "{shown}");
    let shown = format!("{:?}", options().host_list("a,b", "6432").unwrap());
    assert!(shown.contains(r#"[("a", 6432), ("b", 6432)]"#), "{shown}");
    for (hosts, ports) in [("a,b", "1,2,3"), ("a,,b", "1"), ("a", "x"), ("a", "0"), ("a", "70000"), ("", "1")]
    {
        let refused = options().host_list(hosts, ports).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Programming, "{hosts} {ports}");
    }
}

#[test]
fn sslmode_has_the_names_of_libpq() {
    let options = || PostgresOptions::new("events");
    for name in ["disable", "allow", "prefer"] {
        options().sslmode(name).unwrap();
    }
    for name in ["require", "verify-ca", "verify-full"] {
        match options().sslmode(name) {
            Ok(_) if cfg!(feature = "tls") => {}
            Ok(_) => panic!("{name} cannot be had without the feature"),
            Err(refused) => assert_eq!(refused.kind(), ErrorKind::NotSupported),
        }
    }
    assert_eq!(options().sslmode("on").unwrap_err().kind(), ErrorKind::Programming);
}

#[tokio::test]
async fn a_connection_that_must_be_encrypted_is_or_is_not_made() {
    let server = common::Server::from_environment();
    let Ok(options) = server.options().sslmode("require") else { return };
    let has_tls = scalar::<String>(&mut server.connect().await, "SHOW ssl").await == "on";
    let opened = options.open().await;
    if has_tls {
        opened.unwrap();
        // No root certificate is set, and no public authority has signed the certificate of a test server.
        server.options().sslmode("verify-full").unwrap().open().await.unwrap_err();
    } else {
        let refused = opened.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Operational);
        assert!(whole(&refused).contains("does not support TLS"), "{refused:?}");
    }
}

// Secrets.

#[tokio::test]
async fn a_password_is_never_shown() {
    const SECRET: &str = "tell-nobody";
    let server = common::Server::from_environment();
    let options = server.options().password(SECRET);
    assert!(!format!("{options:?}").contains(SECRET));
    let refused = options.open().await.unwrap_err();
    assert_eq!((refused.kind(), refused.is_transient()), (ErrorKind::Operational, false));
    assert!(!whole(&refused).contains(SECRET));
    let schema = Schema::create().await;
    let datastore = schema.open().await;
    let recorder = datastore.application_recorder("bank").await.unwrap();
    let shown = format!("{datastore:?} {recorder:?} {:?}", schema.options());
    assert!(!shown.contains(&schema.server.password));
    let failing = server.options().password_provider(|| async { Err::<String, _>("no token today") });
    let refused = failing.open().await.unwrap_err();
    assert!(whole(&refused).contains("no token today"));
}

// Names.

#[tokio::test]
async fn hostile_names_can_only_fail_clearly() {
    let database = Database::create().await;
    let (server, mut connection) = (&database.server, database.server.connect().await);
    let open = async || server.options().open().await.unwrap();
    // Where a statement that breaks out would find it.
    let victim = "public.victim";
    run(&mut connection, &format!("CREATE TABLE {victim} (n int)")).await;
    for name in [
        format!("\"; DROP TABLE {victim}; --"),
        format!("'; DROP TABLE {victim}; --"),
        "a'b\\c".to_owned(),
        "$body$ $$".to_owned(),
        "%s {} $1".to_owned(),
        "名前 ÄÖ".to_owned(),
    ] {
        let recorder = open().await.process_recorder(&name).await;
        let recorder = recorder.unwrap_or_else(|refused| panic!("{name}: {}", whole(&refused)));
        let tracking = Tracking::new(name.clone(), 1).unwrap();
        let id = Uuid::new_v4();
        assert_eq!(
            recorder.insert_events_with_tracking(vec![event(id, 1)], tracking).await.unwrap(),
            [1],
            "{name}"
        );
        assert!(recorder.insert_events(vec![event(id, 1)]).await.unwrap_err().is_conflict());
        assert_eq!(recorder.max_tracking_id(&name).await.unwrap(), Some(1));
        let snapshots = open().await.aggregate_recorder("", &name).await.unwrap();
        snapshots.insert_events(vec![event(id, 1)]).await.unwrap();
        assert_eq!(snapshots.select_events(id, EventRange::all()).await.unwrap().len(), 1);
    }
    assert_eq!(scalar::<i64>(&mut connection, &format!("SELECT count(*) FROM {victim}")).await, 0);
    for name in ["x".repeat(57), "ä".repeat(29), "n\0ul".to_owned()] {
        let refused = open().await.application_recorder(&name).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Programming, "{refused}");
    }
    // 63 bytes are a name.
    open().await.application_recorder(&"x".repeat(56)).await.unwrap();
    let hostile = server.options().schema("s\"; --").open().await.unwrap();
    let refused = hostile.application_recorder("bank").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Programming, "{}", whole(&refused));
    assert_eq!(
        server
            .options()
            .schema("")
            .open()
            .await
            .unwrap()
            .application_recorder("bank")
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Programming
    );
}

#[tokio::test]
async fn applications_share_a_schema() {
    let schema = Schema::create().await;
    let datastore = schema.open().await;
    let (a, b) = ("a".repeat(50), format!("{}b", "a".repeat(49)));
    let (one, other) =
        (datastore.process_recorder(&a).await.unwrap(), datastore.process_recorder(&b).await.unwrap());
    assert_eq!(one.insert_events(vec![first(), first()]).await.unwrap(), [1, 2]);
    assert_eq!(other.insert_events(vec![first()]).await.unwrap(), [1]);
    assert_eq!(one.max_notification_id().await.unwrap(), Some(2));
}

// Roles and tables.

#[tokio::test]
async fn a_missing_table_is_named() {
    let schema = Schema::create().await;
    let datastore = schema.options().create_table(false).open().await.unwrap();
    for refused in [
        datastore.application_recorder("bank").await.unwrap_err(),
        datastore.process_recorder("bank").await.unwrap_err(),
    ] {
        assert_eq!(refused.kind(), ErrorKind::Programming);
        assert!(refused.to_string().contains("\"bank_"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_create_at_once() {
    let schema = Schema::create().await;
    let mut starting = Vec::new();
    for _ in 0..12 {
        let options = schema.options().pool_size(1);
        starting.push(tokio::spawn(async move {
            let recorder = options.open().await.unwrap().process_recorder("bank").await.unwrap();
            recorder.insert_events(vec![first()]).await.unwrap();
        }));
    }
    for started in starting {
        started.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_that_may_only_read_or_insert_work() {
    let schema = Schema::create().await;
    let owner = schema.open().await.process_recorder("bank").await.unwrap();
    let id = Uuid::new_v4();
    owner.insert_events(vec![event(id, 1)]).await.unwrap();
    let (reader, inserter) = (Role::create(&schema).await, Role::create(&schema).await);
    let grants = format!(
        "GRANT SELECT ON ALL TABLES IN SCHEMA {0} TO {1}, {2}; GRANT INSERT ON {0}.bank_events TO {2}; \
         GRANT INSERT, UPDATE ON {0}.bank_tracking TO {2}; GRANT USAGE ON ALL SEQUENCES IN SCHEMA {0} TO {2}",
        schema.name, reader.name, inserter.name
    );
    run(&mut schema.connect().await, &grants).await;
    let open = async |role: &Role, ordering| {
        let options = role.server.options().schema(&schema.name).create_table(false).ordering(ordering);
        options.open().await.unwrap().process_recorder("bank").await.unwrap()
    };
    for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
        let reading = open(&reader, ordering).await;
        assert_eq!(reading.select_events(id, EventRange::all()).await.unwrap().len(), 1);
        assert!(
            !reading.select_notifications(NotificationSelection::new(9).after(0)).await.unwrap().is_empty()
        );
        let refused = reading.insert_events(vec![first()]).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Programming, "{}", whole(&refused));
    }
    let mut position = 0;
    for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
        let inserting = open(&inserter, ordering).await;
        inserting.insert_events(vec![first(), first()]).await.unwrap();
        assert!(inserting.insert_events(vec![event(id, 1)]).await.unwrap_err().is_conflict());
        position += 1;
        let tracking = Tracking::new("upstream", position).unwrap();
        inserting.insert_events_with_tracking(vec![first()], tracking.clone()).await.unwrap();
        assert!(inserting.insert_tracking(tracking).await.unwrap_err().is_conflict());
    }
    // Such writers exclude each other, and writers that take the lock of the table.
    let events = schema.table("bank_events");
    let (one, other) = (
        open(&inserter, NotificationOrdering::Serialized).await,
        open(&inserter, NotificationOrdering::Serialized).await,
    );
    let mut holder = schema.connect().await;
    run(&mut holder, &format!("BEGIN; LOCK TABLE {events} IN EXCLUSIVE MODE")).await;
    let inserts = [one.clone(), other].map(|recorder| {
        tokio::spawn(async move { recorder.insert_events(vec![first(), first()]).await.unwrap() })
    });
    let both = format!(
        "SELECT count(*) = 2 FROM pg_locks WHERE NOT granted \
         AND (relation = '{events}'::regclass OR (locktype = 'advisory' AND objid = '{events}'::regclass))"
    );
    until(&mut schema.connect().await, &both).await;
    run(&mut holder, "COMMIT").await;
    for insert in inserts {
        let ids = insert.await.unwrap();
        assert_eq!(ids[1], ids[0] + 1);
    }
}

#[tokio::test]
async fn a_role_that_may_not_create_tables_uses_existing_ones() {
    let schema = Schema::create().await;
    schema.open().await.process_recorder("bank").await.unwrap();
    let role = Role::create(&schema).await;
    let grants = format!(
        "GRANT ALL ON ALL TABLES IN SCHEMA {0} TO {1}; GRANT ALL ON ALL SEQUENCES IN SCHEMA {0} TO {1}",
        schema.name, role.name
    );
    run(&mut schema.connect().await, &grants).await;
    let datastore = role.server.options().schema(&schema.name).open().await.unwrap();
    let recorder = datastore.process_recorder("bank").await.unwrap();
    assert_eq!(recorder.insert_events(vec![first(), first()]).await.unwrap(), [1, 2]);
    let refused = datastore.process_recorder("unmade").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Programming, "a table that the role may not create");
}

// After a failover to a server that lost events.

#[tokio::test]
async fn a_position_beyond_the_upstreams_highest_id_is_reported() {
    let schema = Schema::create().await;
    let datastore = schema.open().await;
    let upstream = datastore.application_recorder("upstream").await.unwrap();
    let downstream = datastore.process_recorder("downstream").await.unwrap();
    assert_eq!(downstream.validated_position("upstream", &upstream).await.unwrap(), None);
    upstream.insert_events(vec![first(), first()]).await.unwrap();
    downstream.insert_tracking(Tracking::new("upstream", 2).unwrap()).await.unwrap();
    assert_eq!(downstream.validated_position("upstream", &upstream).await.unwrap(), Some(2));
    let events = schema.table("upstream_events");
    run(&mut schema.connect().await, &format!("DELETE FROM {events} WHERE notification_id = 2")).await;
    let lost = downstream.validated_position("upstream", &upstream).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::RolledBack);
    assert!(lost.to_string().contains("the position is 2") && !lost.is_conflict(), "{lost}");
}

// The caller's transaction.

#[tokio::test]
async fn events_and_the_callers_own_tables_change_together() {
    for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
        let schema = Schema::create().await;
        let mut connection = schema.connect().await;
        let options = schema.options().ordering(ordering).lock_timeout(Duration::from_secs(3));
        let recorder = options.open().await.unwrap().process_recorder("bank").await.unwrap();
        let own = schema.table("own");
        run(&mut connection, &format!("CREATE TABLE {own} (n int)")).await;
        let id = Uuid::new_v4();

        let mut transaction = connection.begin().await.unwrap();
        run(&mut transaction, &format!("INSERT INTO {own} VALUES (1); SET LOCAL lock_timeout = '11s'")).await;
        let tracking = Tracking::new("upstream", 1).unwrap();
        let ids = recorder.insert_events_with_tracking_in(&mut transaction, &[event(id, 1)], &tracking).await;
        assert_eq!(ids.unwrap(), [1]);
        let wait: String = scalar(&mut transaction, "SELECT current_setting('lock_timeout')").await;
        assert_eq!(wait, "11s", "the caller's own setting is left as it was");
        assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), None, "not committed yet");
        transaction.commit().await.unwrap();
        assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(1));

        // A conflict leaves the transaction usable, and a rollback takes everything back.
        let mut transaction = connection.begin().await.unwrap();
        let refused = recorder.insert_events_in(&mut transaction, &[event(id, 1)]).await.unwrap_err();
        assert!(refused.is_conflict());
        recorder.insert_events_in(&mut transaction, &[event(id, 2)]).await.unwrap();
        transaction.rollback().await.unwrap();
        assert_eq!(recorder.select_events(id, EventRange::all()).await.unwrap(), [event(id, 1)]);
        recorder.close().await.unwrap();
    }
}

/// A position that a rival recorded between the check and the insertion left the events in the caller's
/// transaction, to be committed without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_an_append_cannot_be_committed_by_the_caller() {
    let schema = Schema::create().await;
    schema.open().await.process_recorder("bank").await.unwrap();
    let mut rival = schema.connect().await;
    let tracking = schema.table("bank_tracking");
    run(&mut rival, &format!("INSERT INTO {tracking} VALUES ('upstream', 5)")).await;
    let datastore = schema.open().await;
    let recorder = datastore.process_recorder("bank").await.unwrap();
    // It takes no lock of the events table, as no transaction has to that moves a position alone.
    run(&mut rival, &format!("BEGIN; UPDATE {tracking} SET notification_id = 9")).await;
    let mut connection = schema.connect().await;
    let appending = tokio::spawn(async move {
        let mut transaction = connection.begin().await.unwrap();
        let position = Tracking::new("upstream", 7).unwrap();
        recorder.insert_events_with_tracking_in(&mut transaction, &[first()], &position).await.unwrap_err();
        // The server rolls a transaction back that has failed, and the driver may say so.
        let _ = transaction.commit().await;
    });
    let waiting = "SELECT EXISTS (SELECT FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) \
                   WHERE l.locktype = 'transactionid' AND NOT l.granted AND a.query LIKE '%";
    until(&mut schema.connect().await, &format!("{waiting}{}%')", schema.name)).await;
    run(&mut rival, "COMMIT").await;
    appending.await.unwrap();
    let count = format!("SELECT count(*) FROM {}", schema.table("bank_events"));
    assert_eq!(scalar::<i64>(&mut rival, &count).await, 0);
}
