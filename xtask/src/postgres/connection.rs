//! The connection settings of a server, in the environment variables that the library itself reads.

use std::{env, fmt, fs::File, io::Read, net::TcpStream, process::Command};

use anyhow::{Context, Result, bail};

const REQUIRED: [&str; 4] = ["POSTGRES_HOST", "POSTGRES_DBNAME", "POSTGRES_USER", "POSTGRES_PASSWORD"];
const PORT: &str = "POSTGRES_PORT";
const DEFAULT_PORT: &str = "5432";

/// Displayed without the password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) host: String,
    pub(crate) port: String,
    pub(crate) dbname: String,
    pub(crate) user: String,
    pub(crate) password: String,
}

impl Connection {
    /// The connection of a server that we start ourselves: its superuser, on loopback.
    pub(crate) fn to_own_server(port: u16, password: String) -> Self {
        let [host, dbname, user] = ["127.0.0.1", "postgres", "postgres"].map(str::to_owned);
        Self { host, port: port.to_string(), dbname, user, password }
    }

    /// `None` if no variable is set, an error if only some of the required ones are.
    pub(crate) fn from_environment() -> Result<Option<Self>> {
        Self::from_variables(|name| env::var(name).ok())
    }

    /// Reads what [`variables`](Self::variables) wrote as lines `NAME=value`.
    pub(crate) fn from_lines(lines: &str) -> Result<Option<Self>> {
        let pairs: Vec<_> = lines.lines().filter_map(|line| line.split_once('=')).collect();
        let value =
            |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Self::from_variables(value)
    }

    fn from_variables(value: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let missing: Vec<_> = REQUIRED.into_iter().filter(|name| value(name).is_none()).collect();
        if missing.len() == REQUIRED.len() && value(PORT).is_none() {
            return Ok(None);
        }
        let [Some(host), Some(dbname), Some(user), Some(password)] = REQUIRED.map(&value) else {
            bail!(
                "POSTGRES_* is set in part, {} is missing; set all of it, or none to have a server started",
                missing.join(", ")
            );
        };
        let port = value(PORT).unwrap_or_else(|| DEFAULT_PORT.to_owned());
        Ok(Some(Self { host, port, dbname, user, password }))
    }

    /// Names and values, as the library reads them.
    pub(crate) fn variables(&self) -> [(&'static str, &str); 5] {
        [
            ("POSTGRES_HOST", &self.host),
            ("POSTGRES_PORT", &self.port),
            ("POSTGRES_DBNAME", &self.dbname),
            ("POSTGRES_USER", &self.user),
            ("POSTGRES_PASSWORD", &self.password),
        ]
    }

    /// Returns whether a server listens there.
    pub(crate) fn is_answered(&self) -> bool {
        TcpStream::connect(format!("{}:{}", self.host, self.port)).is_ok()
    }

    /// `psql` and its relatives know other names.
    pub(crate) fn for_psql(&self, command: &mut Command) {
        command.envs([
            ("PGHOST", &self.host),
            ("PGPORT", &self.port),
            ("PGDATABASE", &self.dbname),
            ("PGUSER", &self.user),
            ("PGPASSWORD", &self.password),
        ]);
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, dbname, user, .. } = self;
        write!(formatter, "{user}@{host}:{port}/{dbname}")
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Connection({self})")
    }
}

/// 128 random bits, for a password: other users of this machine can reach loopback, too.
pub(crate) fn random_hex() -> Result<String> {
    let mut bytes = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    read.context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::Connection;

    const ALL: &str = "POSTGRES_HOST=h\nPOSTGRES_DBNAME=d\nPOSTGRES_USER=u\nPOSTGRES_PASSWORD=p=q\n";

    #[test]
    fn nothing_set_is_no_connection() {
        assert_eq!(Connection::from_lines("PATH=/bin\n").unwrap(), None);
    }

    #[test]
    fn all_that_is_required_is_a_connection_with_the_default_port() {
        let connection = Connection::from_lines(ALL).unwrap().unwrap();
        assert_eq!(connection.port, "5432");
        assert_eq!(connection.password, "p=q");
    }

    #[test]
    fn variables_are_read_back() {
        let written = Connection::to_own_server(5433, "secret".to_owned());
        let lines: String = written.variables().map(|(name, value)| format!("{name}={value}\n")).concat();
        assert_eq!(Connection::from_lines(&lines).unwrap(), Some(written));
    }

    #[test]
    fn a_part_is_an_error_that_names_what_is_missing() {
        let error = Connection::from_lines("POSTGRES_HOST=h\nPOSTGRES_USER=u\n").unwrap_err().to_string();
        assert!(error.contains("POSTGRES_DBNAME, POSTGRES_PASSWORD is missing"), "{error}");
    }

    #[test]
    fn a_port_alone_is_a_part() {
        assert!(Connection::from_lines("POSTGRES_PORT=5433\n").is_err());
    }

    #[test]
    fn the_password_is_not_displayed() {
        let connection = Connection::to_own_server(5433, "secret".to_owned());
        assert!(!format!("{connection} {connection:?}").contains("secret"));
    }
}
