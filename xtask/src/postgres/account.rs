//! The account that a server runs as: PostgreSQL refuses to run as root.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};

/// Taken in this order when we are root. The first exists where Debian's or Fedora's packages are installed.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// Our own account, or an unprivileged one if we are root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    other: Option<(u32, u32)>,
}

impl Account {
    pub(crate) fn for_server() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { other: None });
        }
        let accounts = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        let other = UNPRIVILEGED.iter().find_map(|name| ids(&accounts, name));
        other.context("PostgreSQL does not run as root, and there is no user postgres or nobody")?;
        Ok(Self { other })
    }

    /// A command that runs as this account, in a directory of its own choice: ours may be closed to it.
    pub(crate) fn command(self, program: impl AsRef<OsStr>, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(directory);
        if let Some((user, group)) = self.other {
            // The standard library drops root's supplementary groups along with the user id.
            command.gid(group).uid(user);
        }
        command
    }

    /// The same in a network namespace, which only root can enter.
    pub(crate) fn command_in_namespace(self, namespace: &Path, program: &str, directory: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.current_dir(directory).arg(format!("--net={}", namespace.display()));
        if let Some((user, group)) = self.other {
            command.args([format!("--setuid={user}"), format!("--setgid={group}")]);
        }
        command.arg("--").arg(program);
        command
    }

    /// Gives it a file or directory of ours.
    pub(crate) fn own(self, path: &Path) -> Result<()> {
        let Some((user, group)) = self.other else { return Ok(()) };
        chown(path, Some(user), Some(group)).with_context(|| format!("cannot give {} away", path.display()))
    }

    /// Tried rather than computed: permissions of every parent matter, and more than the mode bits can forbid
    /// it.
    pub(crate) fn can_enter(self, directory: &Path) -> bool {
        self.command("true", directory).status().is_ok_and(|status| status.success())
    }
}

/// User and group id, from the text of `/etc/passwd`.
fn ids(accounts: &str, name: &str) -> Option<(u32, u32)> {
    let mut fields = accounts.lines().map(|line| line.split(':')).find_map(|mut fields| {
        let is_it = fields.next() == Some(name);
        is_it.then_some(fields)
    })?;
    let user = fields.nth(1)?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    Some((user, group))
}

#[cfg(test)]
mod tests {
    use super::ids;

    #[test]
    fn ids_are_those_of_the_whole_name() {
        let accounts =
            "root:x:0:0:root:/root:/bin/sh\npostgres2:x:7:8::/:/bin/sh\npostgres:x:101:104:,,,:/:/bin/sh\n";
        assert_eq!(ids(accounts, "postgres"), Some((101, 104)));
        assert_eq!(ids(accounts, "nobody"), None);
    }
}
