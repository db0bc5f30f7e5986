//! Behind pgbouncer in transaction mode, where a session belongs to nobody.
//!
//! Runs where pgbouncer is installed (`apt-get install pgbouncer`), and says so where it is not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests say what they expect by unwrapping it"
)]

mod common;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::{Schema, Server, event, first};
use es_core::{
    AggregateRecorder, ApplicationRecorder, EventRange, NotificationSelection, ProcessRecorder, Tracking,
    TrackingRecorder, uuid::Uuid,
};
use es_postgres::Ordering;

struct Bouncer {
    child: Child,
    directory: PathBuf,
    port: u16,
}

impl Bouncer {
    async fn start(server: &Server) -> Option<Self> {
        let candidates = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
        let Some(program) = candidates.into_iter().find(|path| Path::new(path).exists()) else {
            println!("skipped: pgbouncer is not installed (`apt-get install pgbouncer`)");
            return None;
        };
        let directory = std::env::temp_dir().join(format!("pgbouncer-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&directory).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = format!(
            "[databases]\n* = host={} port={} user={} password={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n\
             max_client_conn = 50\nunix_socket_dir =\n",
            server.host, server.port, server.user, server.password
        );
        let file = directory.join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new(program);
        if Path::new("/proc/self").exists() && is_root() {
            // It refuses to run as root.
            let readable = Command::new("chown").args(["-R", "nobody"]).arg(&directory).status().unwrap();
            assert!(readable.success());
            command.args(["-u", "nobody"]);
        }
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let child =
            command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let bouncer = Self { child, directory, port };
        for _ in 0..400 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Some(bouncer);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!(
            "pgbouncer did not start: {}",
            std::fs::read_to_string(bouncer.directory.join("log")).unwrap()
        );
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorders_work_behind_pgbouncer_in_transaction_mode() {
    let schema = Schema::create().await;
    let Some(bouncer) = Bouncer::start(&schema.server).await else { return };
    for ordering in [Ordering::TableLock, Ordering::Parallel] {
        let options = schema.options().host("127.0.0.1").port(bouncer.port).transaction_pooler(true);
        let options = options
            .ordering(ordering)
            .lock_timeout(Duration::from_secs(10))
            .idle_in_transaction_session_timeout(Duration::from_secs(10));
        let name = format!("{ordering:?}");
        let recorder = options.open().await.unwrap().process_recorder(&name).await.unwrap();
        let id = Uuid::new_v4();
        let mut tasks = Vec::new();
        for _ in 0..8 {
            let recorder = recorder.clone();
            tasks.push(tokio::spawn(async move {
                for _ in 0..5 {
                    recorder.insert_events(vec![first(), first()]).await.unwrap();
                    recorder.select_notifications(NotificationSelection::new(3).after(0)).await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let tracking = Tracking::new("upstream", 1).unwrap();
        recorder.insert_events_with_tracking(vec![event(id, 1)], tracking.clone()).await.unwrap();
        assert!(recorder.insert_tracking(tracking).await.unwrap_err().is_conflict());
        assert!(recorder.insert_events(vec![event(id, 1)]).await.unwrap_err().is_conflict());
        assert_eq!(recorder.select_events(id, EventRange::all()).await.unwrap(), [event(id, 1)]);
        let all = recorder.select_notifications(NotificationSelection::new(1_000)).await.unwrap();
        assert_eq!(all.len(), 81);
    }
}
