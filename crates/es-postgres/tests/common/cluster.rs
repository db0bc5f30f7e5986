//! A server of a test's own, which may be stopped, killed and started again.

use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::{
        fs::{PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use es_core::uuid::Uuid;

use super::{Server, run, scalar};

/// More than a start takes, crash recovery included.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The mode in which a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, and what they did is rolled back.
    Fast,
    /// All processes end at once; the next start recovers.
    Immediate,
    /// The first process is killed, which the others detect soon. Until then they may continue, and show
    /// readers commits that should have waited for a standby.
    Kill,
    /// All processes are killed without doing anything before: as when a machine fails.
    Crash,
}

/// A server; dropping it stops it and deletes its data.
#[derive(Debug)]
pub struct Cluster {
    programs: Programs,
    directory: PathBuf,
    pub server: Server,
    settings: Vec<String>,
    process: Option<Child>,
}

impl Cluster {
    /// Starts a server with new data; none where PostgreSQL's programs are not installed here.
    pub fn start(settings: &[&str]) -> Option<Self> {
        let Some(programs) = Programs::find() else {
            println!("skipped: PostgreSQL's programs are not installed here (initdb, postgres)");
            return None;
        };
        let password = Uuid::new_v4().simple().to_string();
        let mut cluster = Self::with(programs, Server::local(password), settings);
        let password = cluster.directory.join("password");
        fs::write(&password, &cluster.server.password).unwrap();
        cluster.programs.own(&password);
        let mut initdb = cluster.programs.command("initdb", &cluster.directory);
        initdb.arg("--pgdata").arg(cluster.data()).arg("--pwfile").arg(password);
        initdb.args([
            "--username=postgres",
            "--auth=password",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
        ]);
        check(&mut initdb);
        cluster.launch();
        Some(cluster)
    }

    /// Starts a standby of this server, called `standby`.
    pub async fn start_standby(&self) -> Self {
        let mut standby = self.base_backup().await;
        standby.launch_as(
            "standby.signal",
            &format!(
                "primary_conninfo = 'host={} port={} user={} password={} application_name=standby'",
                self.server.host, self.server.port, self.server.user, self.server.password
            ),
        );
        standby
    }

    /// Copies the data as `pg_basebackup` does, which not every installation has. The server of the copy is
    /// not started.
    pub async fn base_backup(&self) -> Self {
        let server = Server::local(self.server.password.clone());
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        let copied = Self::with(self.programs.clone(), server, &settings);
        let mut connection = self.server.connect().await;
        let version: i32 = scalar(&mut connection, "SELECT current_setting('server_version_num')::int").await;
        let (start, stop) = match version {
            150_000.. => ("pg_backup_start('copy', true)", "pg_backup_stop()"),
            _ => ("pg_start_backup('copy', true, false)", "pg_stop_backup(false)"),
        };
        run(&mut connection, &format!("SELECT {start}")).await;
        copy(&self.data(), &copied.data());
        let label: String = scalar(&mut connection, &format!("SELECT labelfile FROM {stop}")).await;
        fs::write(copied.data().join("backup_label"), label).unwrap();
        copied
    }

    /// Starts the server of a copy in recovery, which the signal file and the settings describe.
    pub fn launch_as(&mut self, signal: &str, settings: &str) {
        fs::write(self.data().join(signal), "").unwrap();
        let file = fs::OpenOptions::new().append(true).open(self.data().join("postgresql.auto.conf"));
        writeln!(file.unwrap(), "{settings}").unwrap();
        own_all(&self.programs, &self.data());
        self.launch();
    }

    fn with(programs: Programs, server: Server, settings: &[&str]) -> Self {
        let directory = std::env::temp_dir().join(format!("es-postgres-{}", Uuid::new_v4().simple()));
        fs::create_dir(&directory).unwrap();
        programs.own(&directory);
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        Self { programs, directory, server, settings, process: None }
    }

    /// Starts it on the data that are there, and waits until it takes connections.
    pub fn launch(&mut self) {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            assert!(Instant::now() < deadline, "the server does not start:\n{}", self.log());
            let mut postgres = self.programs.command_of_a_server(&self.directory);
            postgres.arg("-D").arg(self.data());
            // The tests cut no power: data that was passed to the system survives every end of a process.
            let own = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"];
            for setting in own.into_iter().chain(self.settings.iter().map(String::as_str)) {
                postgres.args(["-c", setting]);
            }
            postgres.arg("-c").arg(format!("port={}", self.server.port));
            let log =
                fs::OpenOptions::new().create(true).append(true).open(self.directory.join("log")).unwrap();
            postgres.stdout(log.try_clone().unwrap()).stderr(log);
            let mut process = postgres.spawn().unwrap();
            let is_ready = self.wait_until_ready(&mut process, deadline);
            self.process = Some(process);
            if is_ready {
                return;
            }
            // Processes of the one that was killed are still there: they end when they notice.
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// False when the server has ended.
    fn wait_until_ready(&self, process: &mut Child, deadline: Instant) -> bool {
        let file = self.data().join("postmaster.pid");
        let pid = process.id().to_string();
        while Instant::now() < deadline {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let mut lines = text.lines().map(str::trim);
            if lines.next() == Some(&pid) && lines.nth(6) == Some("ready") {
                return true;
            }
            if process.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    pub fn stop(&mut self, stop: Stop) {
        let Some(mut process) = self.process.take() else { return };
        let signal = match stop {
            Stop::Fast => "-INT",
            Stop::Immediate => "-QUIT",
            Stop::Kill => "-KILL",
            Stop::Crash => {
                // It starts no others, and notices nothing.
                kill("-STOP", process.id());
                children(process.id()).into_iter().for_each(|child| kill("-KILL", child));
                "-KILL"
            }
        };
        kill(signal, process.id());
        process.wait().unwrap();
    }

    /// Stops all processes of the server for now: it neither answers nor closes connections.
    pub fn freeze(&self) {
        let first = self.process.as_ref().unwrap().id();
        // The first one first, so that it starts no others meanwhile.
        kill("-STOP", first);
        children(first).into_iter().for_each(|child| kill("-STOP", child));
    }

    /// Lets a server that is frozen continue.
    pub fn thaw(&self) {
        let first = self.process.as_ref().unwrap().id();
        // The first one last, so that the others do not end before they are signalled.
        children(first).into_iter().for_each(|child| kill("-CONT", child));
        kill("-CONT", first);
    }

    /// Moves the write-ahead log of a server that is stopped to another directory.
    pub fn move_log(&self, directory: &Path) {
        let log = self.data().join("pg_wal");
        self.own(directory);
        check(Command::new("cp").arg("--archive").arg(log.join(".")).arg(directory));
        fs::remove_dir_all(&log).unwrap();
        symlink(directory, &log).unwrap();
    }

    /// Returns the number of times that the server has panicked.
    pub fn panics(&self) -> usize {
        self.log().matches("PANIC:").count()
    }

    /// A directory next to the data, owned by the server's account.
    pub fn directory(&self, name: &str) -> PathBuf {
        let directory = self.directory.join(name);
        fs::create_dir_all(&directory).unwrap();
        self.programs.own(&directory);
        directory
    }

    /// Makes a directory the property of the account of the server.
    pub fn own(&self, path: &Path) {
        self.programs.own(path);
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop(Stop::Immediate);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Sends a signal to a process.
pub fn kill(signal: &str, pid: u32) {
    check(Command::new("kill").arg(signal).arg(pid.to_string()));
}

fn children(pid: u32) -> Vec<u32> {
    let output = Command::new("ps").args(["-o", "pid=", "--ppid"]).arg(pid.to_string()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(|pid| pid.trim().parse().unwrap()).collect()
}

/// Copies the data of a server that runs: files may vanish meanwhile. Its write-ahead log is left out, since
/// the standby streams it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (name, path) = (entry.file_name(), entry.path());
        if name == "pg_wal" {
            fs::create_dir(to.join(name)).unwrap();
        } else if entry.file_type().unwrap().is_dir() {
            copy(&path, &to.join(name));
        } else if name != "postmaster.pid" {
            match fs::copy(&path, to.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => panic!("{}: {error}", path.display()),
                _ => {}
            }
        }
    }
}

fn own_all(programs: &Programs, path: &Path) {
    programs.own(path);
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| own_all(programs, &entry.unwrap().path()));
    }
}

fn check(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Server {
    /// One on a port that is free at this moment.
    fn local(password: String) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let [host, dbname, user] = ["127.0.0.1", "postgres", "postgres"].map(str::to_owned);
        Self { host, port, dbname, user, password }
    }
}

/// PostgreSQL's programs, and the account that runs them: not root, which a server refuses.
#[derive(Clone, Debug)]
struct Programs {
    directory: PathBuf,
    account: Option<(u32, u32)>,
}

impl Programs {
    /// Those of the server under test if it was started from programs, else those that are installed.
    fn find() -> Option<Self> {
        let under_test = std::env::var_os("ES_TEST_POSTGRES_PROGRAMS").map(PathBuf::from);
        let on_path = std::env::var_os("PATH").unwrap_or_default();
        let packaged = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut packaged: Vec<PathBuf> = packaged.map(|version| version.path().join("bin")).collect();
        packaged.sort();
        let is_complete = |directory: &PathBuf| {
            ["initdb", "postgres"].iter().all(|program| directory.join(program).is_file())
        };
        let on_path = std::env::split_paths(&on_path);
        let directory =
            under_test.into_iter().chain(on_path).chain(packaged.into_iter().rev()).find(is_complete)?;
        // The entries of PATH may be links: a server finds its other files next to its real location.
        let directory = fs::canonicalize(directory.join("postgres")).ok()?.parent()?.to_owned();
        let account = match is_root() {
            true => Some(ids("postgres").or_else(|| ids("nobody"))?),
            false => None,
        };
        Some(Self { directory, account })
    }

    fn command(&self, program: &str, directory: &Path) -> Command {
        self.command_at(&self.directory.join(program), directory)
    }

    /// A server that ends with the test, however that ends, where the system can see to it.
    fn command_of_a_server(&self, directory: &Path) -> Command {
        let setpriv =
            ["/usr/bin/setpriv", "/bin/setpriv"].map(Path::new).into_iter().find(|path| path.exists());
        let Some(setpriv) = setpriv else { return self.command("postgres", directory) };
        let mut command = self.command_at(setpriv, directory);
        command.args(["--pdeathsig", "QUIT"]).arg(self.directory.join("postgres"));
        command
    }

    fn command_at(&self, program: &Path, directory: &Path) -> Command {
        let mut command = Command::new(program);
        // Messages are to be in English, and the terminal's signals are the test's.
        command.current_dir(directory).env("LC_ALL", "C").stdin(Stdio::null()).process_group(0);
        if let Some((user, group)) = self.account {
            command.gid(group).uid(user);
        }
        command
    }

    fn own(&self, path: &Path) {
        if let Some((user, group)) = self.account {
            chown(path, Some(user), Some(group)).unwrap();
        }
    }
}

pub fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout.trim_ascii() == b"0"
}

/// User and group id of an account.
fn ids(name: &str) -> Option<(u32, u32)> {
    let accounts = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = accounts.lines().map(|line| line.split(':')).find_map(|mut fields| {
        let is_it = fields.next() == Some(name);
        is_it.then_some(fields)
    })?;
    Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
}
