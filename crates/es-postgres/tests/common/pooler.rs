//! pgbouncer in transaction mode, in the versions that are installed here.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use es_core::uuid::Uuid;

use super::{Server, cluster::is_root};

/// The number of connections to the server that a pooler has for each database and user.
pub const POOL_SIZE: usize = 3;

/// A pgbouncer program.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    /// True if it tracks prepared statements (`max_prepared_statements`, from 1.21).
    pub tracks_statements: bool,
}

impl Program {
    /// The installed one, and the one that `cargo xtask` provides; a message names each that is missing.
    pub fn all() -> Vec<Self> {
        let installed = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
        let installed = installed.iter().map(PathBuf::from).find(|path| path.exists());
        let provided = env::var_os("ES_TEST_PGBOUNCER").map(PathBuf::from);
        let provided = provided.filter(|provided| installed.as_ref() != Some(provided));
        let programs: Vec<Self> = installed.into_iter().chain(provided).map(Self::at).collect();
        if programs.is_empty() {
            println!("skipped: pgbouncer is not installed (`apt-get install pgbouncer`)");
        }
        if !programs.iter().any(|program| program.tracks_statements) {
            println!("skipped: no pgbouncer of version 1.21 or newer (`cargo xtask pgbouncer install`)");
        }
        programs
    }

    fn at(path: PathBuf) -> Self {
        let output = Command::new(&path).arg("--version").output().unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let mut version = output.trim_start_matches("PgBouncer ").split('.');
        let mut number = || version.next().unwrap().parse::<u32>().unwrap();
        Self { path, tracks_statements: (number(), number()) >= (1, 21) }
    }
}

/// A running pgbouncer; dropping it stops it.
pub struct Pooler {
    child: Child,
    directory: PathBuf,
    pub port: u16,
}

impl Pooler {
    /// Starts one in transaction mode in front of a server, as the server's user, with more settings.
    pub async fn start(program: &Program, server: &Server, settings: &str) -> Self {
        let directory = env::temp_dir().join(format!("pgbouncer-{}", Uuid::new_v4().simple()));
        fs::create_dir(&directory).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = format!(
            "[databases]\n* = host={} port={} user={} password={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = {POOL_SIZE}\n\
             max_client_conn = 500\nunix_socket_dir =\n{settings}\n",
            server.host, server.port, server.user, server.password
        );
        let file = directory.join("pgbouncer.ini");
        fs::write(&file, settings).unwrap();
        let mut command = Command::new(&program.path);
        if is_root() {
            // It refuses to run as root.
            let readable = Command::new("chown").args(["-R", "nobody"]).arg(&directory).status().unwrap();
            assert!(readable.success());
            command.args(["-u", "nobody"]);
        }
        let log = fs::File::create(directory.join("log")).unwrap();
        let child =
            command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut pooler = Self { child, directory, port };
        for _ in 0..1_000 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return pooler;
            }
            if pooler.child.try_wait().unwrap().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("pgbouncer did not start: {}", pooler.log());
    }

    /// The same server through this pooler.
    pub fn server(&self, server: &Server) -> Server {
        Server { host: "127.0.0.1".to_owned(), port: self.port, ..server.clone() }
    }

    fn log(&self) -> String {
        fs::read_to_string(Path::new(&self.directory).join("log")).unwrap_or_default()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
