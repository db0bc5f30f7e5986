//! `es keys`.

use std::{fs, process::Stdio};

#[cfg(unix)]
use crate::terminal::Terminal;
use crate::{postgres::Schema, support::Sandbox};

/// The key of the database `sqlite-9.5-aes256-zlib`, which the Python library wrote.
fn python_key() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/python/sqlite-9.5-aes256-zlib.json");
    let expected: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    expected["env"]["CIPHER_KEY"].as_str().unwrap().to_owned()
}

#[test]
fn a_database_of_python_is_rotated_to_a_key_ring_and_then_to_a_new_key() {
    let mut sandbox = Sandbox::with_python_database("sqlite-9.5-aes256-zlib");
    sandbox.set("CIPHER_KEY", &python_key());
    sandbox.set("COMPRESSOR_TOPIC", "zlib");
    let digest = |sandbox: &Sandbox| {
        let run = sandbox.on_bank(&["verify"]);
        run.output().lines().find(|line| line.starts_with("digest ")).unwrap().to_owned()
    };
    let before = digest(&sandbox);
    sandbox.on_bank(&["keys", "list"]).fails_with(2, "no key ring is set");

    // The file does not exist yet.
    sandbox.set("CIPHER_KEYS_FILE", "keys.txt");
    let added = sandbox.on_bank(&["keys", "rotate", "--yes"]);
    assert!(added.output().starts_with("added key 1; distribute"), "{added:?}");
    let listed = sandbox.on_bank(&["keys", "list", "--format", "json"]);
    let (first, legacy) = (r#"{"key_id":1,"is_primary":true}"#, r#"{"key_id":null,"is_primary":false}"#);
    assert_eq!(listed.output(), format!("{first}\n{legacy}\n"));
    let usage = |sandbox: &Sandbox| sandbox.on_bank(&["keys", "usage"]).output().to_owned();
    assert_eq!(
        usage(&sandbox),
        "TABLE      KEY   STATES\nevents     none      48\nsnapshots  none       3\n"
    );
    sandbox.on_bank(&["keys", "reencrypt"]).fails_with(2, "hint: pass --yes");
    let done = sandbox.on_bank(&["keys", "reencrypt", "--yes"]);
    assert_eq!(
        done.output(),
        "events: 48 of 48 states were encrypted again\nsnapshots: 3 of 3 states were encrypted again\n"
    );
    assert_eq!(usage(&sandbox), "TABLE      KEY  STATES\nevents     1        48\nsnapshots  1         3\n");
    assert_eq!(digest(&sandbox), before, "the same log");

    // The next key is distributed, and then encrypts.
    sandbox.on_bank(&["keys", "rotate", "--yes"]).output();
    let keys = fs::read_to_string(sandbox.path("keys.txt")).unwrap();
    assert_eq!(keys.lines().map(|line| &line[..2]).collect::<Vec<_>>(), ["1:", "2:"]);
    assert_eq!(
        sandbox.on_bank(&["keys", "list"]).output(),
        "KEY\n1     encrypts\n2\nnone  decrypts states without an envelope\n"
    );
    let promoted = sandbox.on_bank(&["keys", "rotate", "--promote", "--yes"]);
    assert_eq!(promoted.output(), "key 2 encrypts; distribute the file\n");
    let json = sandbox.on_bank(&["keys", "reencrypt", "--yes", "--format", "json"]);
    assert!(json.output().starts_with(r#"{"table":"events","read":48,"reencrypted":48}"#), "{json:?}");
    assert_eq!(digest(&sandbox), before);
    // No output has a key.
    for run in [&added, &listed, &done, &promoted] {
        assert!(keys.lines().all(|key| !run.stdout.contains(&key[2..])));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(sandbox.path("keys.txt")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    // With the new key alone.
    sandbox.write("keys.txt", keys.lines().find(|line| line.starts_with("2:")).unwrap());
    assert_eq!(digest(&sandbox), before);
}

#[test]
fn a_schema_of_python_is_encrypted_again() {
    let Some(schema) = Schema::of_python("9.5") else { return };
    let mut sandbox = schema.sandbox();
    sandbox.set("CIPHER_KEYS_FILE", "keys.txt");
    let database = ["--application", "bank"];
    let run = |arguments: &[&str]| sandbox.run(&[arguments, &database].concat());
    run(&["keys", "rotate", "--yes"]).output();
    assert!(run(&["keys", "usage"]).output().contains("events     none"));
    // The states of that schema are not encrypted, and are not taken for encrypted ones.
    run(&["keys", "reencrypt", "--yes"]).fails_with(1, "legacy key");
    assert!(run(&["keys", "usage"]).output().contains("events     none"));
}

#[test]
fn files_and_settings_that_cannot_be_used_are_named() {
    let mut sandbox = Sandbox::with_python_database("sqlite-9.5-plain");
    sandbox.on_bank(&["keys", "rotate", "--yes"]).fails_with(2, "CIPHER_KEYS_FILE is not set");
    sandbox.set("CIPHER_KEYS_FILE", "keys.txt");
    sandbox.on_bank(&["keys", "rotate", "--promote", "--yes"]).fails_with(2, "keys.txt has no key");
    sandbox.write("keys.txt", "secret");
    let refused = sandbox.on_bank(&["keys", "rotate", "--yes"]);
    refused.fails_with(2, "entry 1 of");
    assert!(!refused.stderr.contains("secret"));
    sandbox.write("keys.txt", "1:secret");
    sandbox.set("CIPHER_PRIMARY_KEY_ID", "1");
    sandbox.on_bank(&["keys", "rotate", "--promote", "--yes"]).fails_with(2, "CIPHER_PRIMARY_KEY_ID");
    // Its first key would encrypt, and a new key of the file could have one of its ids.
    sandbox.set("CIPHER_KEYS", &format!("1:{}", python_key()));
    for arguments in [&["keys", "rotate", "--yes"][..], &["keys", "rotate", "--promote", "--yes"]] {
        sandbox.on_bank(arguments).fails_with(2, "CIPHER_KEYS has keys beside those of the file");
    }
}

/// Keys with the line ends of Windows are read; a byte order mark is an error.
#[test]
fn the_file_of_a_rotation_keeps_its_keys_permissions_and_links() {
    let key = python_key();
    let mut sandbox = Sandbox::with_python_database("sqlite-9.5-plain");
    sandbox.set("CIPHER_KEYS_FILE", "link.txt");
    sandbox.write("keys.txt", &format!("7:{key}\r\n3:{key}\r\n"));
    let listed = "KEY\n3\n7    encrypts\n";
    #[cfg(unix)]
    {
        use std::os::unix::fs::{PermissionsExt, symlink};
        symlink("keys.txt", sandbox.path("link.txt")).unwrap();
        let group = fs::Permissions::from_mode(0o640);
        fs::set_permissions(sandbox.path("keys.txt"), group).unwrap();
        assert_eq!(sandbox.on_bank(&["keys", "list"]).output(), listed);
        sandbox.on_bank(&["keys", "rotate", "--yes"]).output();
        let mode = fs::metadata(sandbox.path("keys.txt")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(fs::symlink_metadata(sandbox.path("link.txt")).unwrap().is_symlink());
    }
    sandbox.set("CIPHER_KEYS_FILE", "keys.txt");
    sandbox.write("keys.txt", &format!("7:{key}\r\n3:{key}\r\n"));

    // A file that another program left, which every user may read, gets no keys.
    sandbox.write("keys.txt.new", "");
    let refused = sandbox.on_bank(&["keys", "rotate", "--yes"]);
    refused.fails_with(1, "hint: another rotation is running; delete the file if none is");
    assert_eq!(fs::read(sandbox.path("keys.txt.new")).unwrap(), b"");
    assert_eq!(sandbox.on_bank(&["keys", "list"]).output(), listed);
    fs::remove_file(sandbox.path("keys.txt.new")).unwrap();
    sandbox.on_bank(&["keys", "rotate", "--yes"]).output();
    assert!(!sandbox.path("keys.txt.new").exists());
    let kept = fs::read_to_string(sandbox.path("keys.txt")).unwrap();
    assert!(kept.starts_with(&format!("7:{key}\n3:{key}\n8:")), "the keys and their order");

    sandbox.write("keys.txt", &format!("\u{feff}7:{key}\n"));
    sandbox.on_bank(&["keys", "rotate", "--yes"]).fails_with(2, "entry 1 of keys.txt is not ID:BASE64");
    sandbox.on_bank(&["keys", "list"]).fails_with(2, "entry 1 of the cipher keys");
    sandbox.write("keys.txt", &format!("7:{key}\n7:{key}\n"));
    sandbox.on_bank(&["keys", "list"]).fails_with(2, "key 7 is twice in the key ring");
}

/// Each of two rotations at the same time adds a key of its own, or fails.
#[test]
fn rotations_at_the_same_time_lose_no_key() {
    let mut sandbox = Sandbox::with_python_database("sqlite-9.5-plain");
    sandbox.set("CIPHER_KEYS_FILE", "keys.txt");
    let rotations: Vec<_> = (0..8)
        .map(|_| {
            let mut command = sandbox.command(&["keys", "rotate", "--yes", "-d", "sqlite:bank.db"]);
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let outputs = rotations.into_iter().map(|child| child.wait_with_output().unwrap());
    let mut added: Vec<_> =
        outputs.filter(|output| output.status.success()).map(|done| done.stdout).collect();
    added.sort();
    let ids = (1..=added.len()).map(|id| format!("added key {id};"));
    assert!(added.iter().zip(ids).all(|(added, id)| added.starts_with(id.as_bytes())), "{added:?}");
    let keys = fs::read_to_string(sandbox.path("keys.txt")).unwrap();
    assert_eq!(keys.lines().count(), added.len());
    assert!(!added.is_empty());
}

/// Returns the ids of the keys of a file, in their order.
fn ids(sandbox: &Sandbox) -> Vec<String> {
    let keys = fs::read_to_string(sandbox.path("keys.txt")).unwrap();
    keys.lines().map(|line| line.split_once(':').unwrap().0.to_owned()).collect()
}

/// Two rotations have added keys, of which the newest may not be distributed.
#[test]
fn of_several_new_keys_the_distributed_one_is_named() {
    let mut sandbox = Sandbox::with_python_database("sqlite-9.5-plain");
    sandbox.set("CIPHER_KEYS_FILE", "keys.txt");
    let rotate = |arguments: &[&str]| sandbox.on_bank(&[&["keys", "rotate", "--yes"], arguments].concat());
    for _ in 0..3 {
        rotate(&[]).output();
    }
    rotate(&["--promote"]).fails_with(2, "keys.txt has 2 keys that do not encrypt yet");
    rotate(&["--promote", "4"]).fails_with(2, "keys.txt has no key 4");
    assert_eq!(ids(&sandbox), ["1", "2", "3"]);
    assert_eq!(rotate(&["--promote", "2"]).output(), "key 2 encrypts; distribute the file\n");
    assert_eq!(ids(&sandbox), ["2", "1", "3"]);
    // Key 3 is the only one that does not encrypt yet, and then there is none.
    for _ in 0..2 {
        assert_eq!(rotate(&["--promote"]).output(), "key 3 encrypts; distribute the file\n");
        assert_eq!(ids(&sandbox), ["3", "2", "1"]);
    }
}

/// Another rotation ends while the first one waits for the answer to its question.
#[cfg(unix)]
#[test]
fn a_file_that_changes_during_a_rotation_is_not_replaced() {
    let mut sandbox = Sandbox::with_python_database("sqlite-9.5-plain");
    sandbox.set("CIPHER_KEYS_FILE", "keys.txt");
    sandbox.on_bank(&["keys", "rotate", "--yes"]).output();
    for (arguments, question) in
        [(&["keys", "rotate"][..], "add key"), (&["keys", "rotate", "--promote"], "let key")]
    {
        let arguments = [arguments, &["--database", "sqlite:bank.db"]].concat();
        let mut first = Terminal::start(&sandbox, (24, 80), &arguments);
        first.wait_for(question);
        sandbox.on_bank(&["keys", "rotate", "--yes"]).output();
        let before = fs::read(sandbox.path("keys.txt")).unwrap();
        first.press("y\r");
        assert_eq!(first.wait_for_end(), Some(1), "{}", first.text());
        assert!(first.text().contains("keys.txt has changed in the meantime"), "{}", first.text());
        assert_eq!(fs::read(sandbox.path("keys.txt")).unwrap(), before);
        assert!(!sandbox.path("keys.txt.new").exists());
    }
}
