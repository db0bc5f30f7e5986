//! `es ui` by HTTP: every refusal, and pages with values of other people.

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    postgres::Schema,
    support::{Running, Sandbox},
};

const ACCOUNT: &str = "69d45f5d-823c-453d-b341-1550464bc315";
const SCRIPT: &str = "<script>alert('1')</script>\"'&";

/// A request and its status: a name, the method, the target, and the headers.
type Case<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)], u16);

/// A running page.
pub(crate) struct Page {
    pub(crate) running: Running,
    pub(crate) url: String,
    port: u16,
    directory: String,
    token: String,
}

/// A response: the head with lower-case names, and the body.
#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Page {
    pub(crate) fn start(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        let mut running = sandbox.start(&[&["ui"], arguments].concat());
        let mut url = String::new();
        BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let url = url.trim_end().to_owned();
        let (address, token) = url.split_once("?token=").expect(&url);
        let address = address.strip_prefix("http://127.0.0.1:").expect(&url);
        let (port, directory) = address.split_once('/').unwrap();
        Self {
            running,
            port: port.parse().unwrap(),
            directory: format!("/{directory}"),
            token: token.to_owned(),
            url: url.clone(),
        }
    }

    pub(crate) fn on_bank(sandbox: &Sandbox) -> Self {
        Self::start(sandbox, &["--database", "sqlite:bank.db"])
    }

    /// Connects and sends a request.
    fn send(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> TcpStream {
        let mut request = format!("{method} {target} HTTP/1.1\r\n");
        headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(format!("{request}\r\n").as_bytes()).unwrap();
        stream
    }

    /// Sends a request with the cookie, and does not read the response.
    fn send_get(&self, path: &str) -> TcpStream {
        let headers = [("Host", &*self.host()), ("Cookie", &*self.cookie())];
        self.send("GET", &format!("{}{path}", self.directory), &headers)
    }

    fn request(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
        let mut stream = self.send(method, target, &[headers, &[("Connection", "close")]].concat());
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect(&text);
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Response { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn cookie(&self) -> String {
        format!("es-ui={}", self.token)
    }

    /// Requests a page with the cookie.
    fn get(&self, path: &str) -> Response {
        let target = format!("{}{path}", self.directory);
        let response = self.request("GET", &target, &[("Host", &self.host()), ("Cookie", &self.cookie())]);
        assert_secured(&response);
        response
    }

    fn body(&self, path: &str) -> String {
        let response = self.get(path);
        assert_eq!(response.status, 200, "{path}: {response:?}");
        response.body
    }

    /// Opens the live tail, and returns its lines.
    fn live(&self, query: &str) -> impl Iterator<Item = String> + use<> {
        let target = format!("{}live?{query}", self.directory);
        let (host, cookie) = (self.host(), self.cookie());
        // The connection ends with the response.
        let headers = [("Host", &*host), ("Cookie", &*cookie), ("Connection", "close")];
        let stream = self.send("GET", &target, &headers);
        BufReader::new(stream).lines().map_while(Result::ok)
    }
}

/// Verifies the headers that every response has.
fn assert_secured(response: &Response) {
    for header in [
        "cache-control: no-store",
        "content-security-policy: default-src 'none'; connect-src 'self'; img-src 'self'; script-src 'self'; \
         style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'",
        "cross-origin-opener-policy: same-origin",
        "cross-origin-resource-policy: same-origin",
        "referrer-policy: no-referrer",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
    ] {
        assert!(response.head.contains(&format!("\r\n{header}")), "{header}: {response:?}");
    }
}

fn bank() -> Sandbox {
    Sandbox::with_python_database("sqlite-9.5-plain")
}

#[test]
fn requests_of_others_are_refused() {
    let sandbox = bank();
    let page = Page::on_bank(&sandbox);
    let (host, cookie, log) = (page.host(), page.cookie(), format!("{}log", page.directory));
    let foreign_host = format!("bank.example:{}", page.port);
    let own_origin = format!("http://{host}");
    let own: &[(&str, &str)] = &[("Host", &host), ("Cookie", &cookie)];
    let with = |header| [own, &[header]].concat();
    let shorter = &cookie[..cookie.len() - 1];
    let other_token = format!("{shorter}{}", if cookie.ends_with('0') { '1' } else { '0' });
    let entry = format!("{}?token={}", page.directory, page.token);
    let wrong_entry = format!("{}?token={}", page.directory, "0".repeat(page.token.len()));
    let token_elsewhere = format!("{log}?token={}", page.token);
    let foreign_target = format!("http://{foreign_host}{log}");
    let cases: &[Case<'_>] = &[
        ("the page", "GET", &log, own, 200),
        ("own origin", "GET", &log, &with(("Origin", &own_origin)), 200),
        ("the entry", "GET", &entry, &[("Host", &host)], 200),
        ("no token", "GET", &log, &[("Host", &host)], 403),
        ("no token at the entry", "GET", &page.directory, &[("Host", &host)], 403),
        ("no token at the root", "GET", "/", &[("Host", &host)], 403),
        ("no token for a file", "GET", &format!("{}style.css", page.directory), &[("Host", &host)], 403),
        ("a wrong token", "GET", &log, &[("Host", &host), ("Cookie", &other_token)], 403),
        ("a part of the token", "GET", &log, &[("Host", &host), ("Cookie", shorter)], 403),
        ("an empty token", "GET", &log, &[("Host", &host), ("Cookie", "es-ui=")], 403),
        ("a wrong token at the entry", "GET", &wrong_entry, &[("Host", &host)], 403),
        ("a token in the URL of a page", "GET", &token_elsewhere, &[("Host", &host)], 403),
        ("the name of another site", "GET", &log, &[("Host", &foreign_host), ("Cookie", &cookie)], 421),
        ("a host without the port", "GET", &log, &[("Host", "127.0.0.1"), ("Cookie", &cookie)], 421),
        ("two hosts", "GET", &log, &with(("Host", &foreign_host)), 421),
        ("the target of another site", "GET", &foreign_target, own, 421),
        ("another origin", "GET", &log, &with(("Origin", "https://bank.example")), 403),
        ("the origin of another port", "GET", &log, &with(("Origin", "http://127.0.0.1:1")), 403),
        ("no origin", "GET", &log, &with(("Origin", "null")), 403),
        ("POST", "POST", &log, &with(("Content-Length", "0")), 405),
        ("PUT", "PUT", &log, &with(("Content-Length", "0")), 405),
        ("DELETE", "DELETE", &log, own, 405),
        ("OPTIONS", "OPTIONS", &log, own, 405),
        ("HEAD", "HEAD", &log, own, 405),
        ("TRACE", "TRACE", &log, own, 405),
        ("POST without a token", "POST", &log, &[("Host", &host), ("Content-Length", "0")], 405),
        ("another directory", "GET", "/00000000000000000000000000000000/log", own, 404),
        ("traversal", "GET", &format!("{}../../../../etc/passwd", page.directory), own, 404),
        ("encoded traversal", "GET", &format!("{}%2e%2e%2f%2e%2e%2fetc%2fpasswd", page.directory), own, 404),
        ("a file of the directory", "GET", &format!("{}bank.db", page.directory), own, 404),
    ];
    for (case, method, target, headers, status) in cases {
        let response = page.request(method, target, headers);
        assert_eq!(response.status, *status, "{case}: {response:?}");
        assert_secured(&response);
        assert!(!response.body.contains(&page.token), "{case}: the token is not in a page");
        assert_eq!(response.head.contains("\r\nallow: get\r\n"), *status == 405, "{case}: {response:?}");
        assert_eq!(response.head.contains("set-cookie"), *case == "the entry", "{case}: {response:?}");
        assert_eq!(response.body.contains("bank:Account"), *status == 200 && *case != "the entry", "{case}");
    }
    let entry = page.request("GET", &entry, &[("Host", &format!("localhost:{}", page.port))]);
    let expected = format!("set-cookie: {cookie}; path={}; httponly; samesite=strict\r\n", page.directory);
    assert!(entry.head.contains(&expected), "{entry:?}");
}

#[test]
fn only_the_loopback_interface_is_served() {
    let sandbox = bank();
    let page = Page::on_bank(&sandbox);
    // Every address of 127.0.0.0/8 is the loopback interface, but the page has one.
    assert!(TcpStream::connect(("127.0.0.2", page.port)).is_err());
    let port = page.port.to_string();
    sandbox.on_bank(&["ui", "--port", &port]).fails_with(1, "cannot listen on port");
}

#[test]
fn the_url_is_printed_as_json() {
    let sandbox = bank();
    let mut running = sandbox.start(&["ui", "-d", "sqlite:bank.db", "--format", "json"]);
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(line["url"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{line}");
    sandbox.run(&["ui", "-d", "sqlite:absent.db"]).fails_with(3, "absent.db");
}

#[test]
fn the_browser_is_opened_by_a_private_file() {
    let mut sandbox = bank();
    let fifo = sandbox.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let script = "#!/bin/sh\n{ echo \"$1\"; /bin/ls -l \"$1\"; /bin/cat \"$1\"; } > fifo\n";
    sandbox.write("xdg-open", script);
    fs::set_permissions(sandbox.path("xdg-open"), Permissions::from_mode(0o755)).unwrap();
    let directory = sandbox.path("").to_str().unwrap().to_owned();
    sandbox.set("PATH", &directory);
    let mut page = Page::start(&sandbox, &["--database", "sqlite:bank.db", "--open"]);
    let opened = fs::read_to_string(fifo).unwrap();
    let [file, listed, content]: [&str; 3] = opened.splitn(3, '\n').collect::<Vec<_>>().try_into().unwrap();
    assert!(listed.starts_with("-rw-------"), "{opened}");
    assert!(content.contains(&page.url), "{opened}");
    kill_process(Pid::from_child(&page.running.0), Signal::INT).unwrap();
    assert_eq!(page.running.0.wait().unwrap().code(), Some(0));
    assert!(!Path::new(file).exists(), "the file with the token is deleted");
}

#[test]
fn values_are_text_and_not_markup() {
    let sandbox = bank();
    let quoted = SCRIPT.replace('\'', "''");
    let json = serde_json::json!({ "note": SCRIPT, (SCRIPT): 1 }).to_string().replace('\'', "''");
    sandbox.execute(&format!(
        "UPDATE stored_events SET topic = '{quoted}', state = CAST('{json}' AS BLOB) WHERE rowid <= 43; \
         UPDATE stored_events SET state = CAST('{quoted}' AS BLOB) WHERE rowid = 2; \
         INSERT INTO tracking VALUES ('{quoted}', 1)"
    ));
    let page = Page::on_bank(&sandbox);
    let encoded = "%3Cscript%3Ealert(%271%27)%3C/script%3E%22%27%26";
    let pages = [
        "log",
        "topics",
        "trackers",
        "activity",
        &format!("log?topic={encoded}"),
        &format!("log?aggregate={encoded}&order={encoded}"),
        &format!("log?since={encoded}&until={encoded}&to={encoded}"),
        &format!("activity?newest={encoded}"),
        &format!("aggregate?id={ACCOUNT}"),
        &format!("aggregate?id={ACCOUNT}&left=2&right=3"),
        &format!("aggregate?id={encoded}"),
        encoded,
    ];
    for path in pages {
        let body = page.get(path).body;
        assert!(!body.contains("<script>"), "{path}: {body}");
        assert!(!body.contains("alert('1')</"), "{path}: {body}");
        // The only script is the file of the live tail.
        let scripts = body.matches("<script src=\"live.js\" defer></script>").count();
        assert_eq!(body.matches("<script").count(), scripts, "{path}");
        assert!(!body.contains(" style="), "{path}: {body}");
        let is_handler =
            |rest: &str| rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).starts_with('=');
        assert!(!body.split(" on").skip(1).any(is_handler), "{path}: {body}");
    }
    let topics = page.body("topics");
    let link = "log?topic=%3Cscript%3Ealert%28%271%27%29%3C%2Fscript%3E%22%27%26";
    assert!(topics.contains(&format!("href=\"{link}\"")), "{topics}");
    assert!(topics.contains("&lt;script&gt;alert('1')&lt;/script&gt;&quot;'&amp;"), "{topics}");
    assert!(page.body(link).contains("43 events"), "the link finds the events of the topic");
}

#[test]
fn the_log_is_filtered_and_paged() {
    let sandbox = bank();
    sandbox.execute(
        "INSERT INTO stored_events WITH RECURSIVE numbers(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM numbers LIMIT 100) \
         SELECT 'aaaaaaaaaaaaaaaaaaaaaaaa' || printf('%08x', value), 1, 'bank:Many', '{}' FROM numbers",
    );
    let page = Page::on_bank(&sandbox);
    let ids = |path: &str| {
        let body = page.body(path);
        let (_, body) = body.split_once("<tbody>").unwrap();
        let ids = body.split("class=\"number id\" scope=\"row\">").skip(1);
        ids.map(|rest| rest.split('<').next().unwrap().parse().unwrap()).collect::<Vec<i64>>()
    };
    let descending = |from: i64, to: i64| (to..=from).rev().collect::<Vec<_>>();
    assert_eq!(ids("log"), descending(143, 94));
    assert_eq!(ids("log?before=94"), descending(93, 44));
    assert_eq!(ids("log?before=44"), descending(43, 1));
    assert_eq!(ids("log?after=43"), descending(93, 44));
    assert_eq!(ids("log?order=oldest"), (1..=50).collect::<Vec<_>>());
    assert_eq!(ids("log?order=oldest&after=50"), (51..=100).collect::<Vec<_>>());
    assert_eq!(ids("log?from=40&to=42"), [42, 41, 40]);
    assert_eq!(ids("log?topic=bank:Account.Closed"), [41, 29, 12]);
    assert_eq!(ids(&format!("log?aggregate={ACCOUNT}")), [5, 4, 3, 2, 1]);
    assert_eq!(ids(&format!("log?aggregate={ACCOUNT}&topic=bank:Account.Verified")), [5]);
    assert_eq!(ids("log?to=43&until=2026-11-23T06:49:17.027200"), [2, 1]);
    assert_eq!(ids("log?since=2026-11-23T06:49:17.027200Z&to=4"), [4, 3]);
    assert_eq!(ids("log?until=2000-01-01T00:00"), Vec::<i64>::new());
    for (path, message) in [
        ("log?from=x", "From id: expected a number"),
        ("log?aggregate=x", "Aggregate id: expected a UUID"),
        ("log?since=yesterday", "Since: expected a date and a time"),
        ("aggregate?id=x", "Aggregate id: expected a UUID"),
    ] {
        let refused = page.get(path);
        assert!(refused.status == 400 && refused.body.contains(message), "{refused:?}");
    }
    let absent = page.get("aggregate?id=00000000-0000-0000-0000-000000000009");
    assert!(absent.status == 404 && absent.body.contains("There are no events of aggregate"), "{absent:?}");
    assert_eq!(page.get(&format!("aggregate?id={ACCOUNT}&left=99")).status, 404);
    let trackers = page.body("trackers");
    assert!(trackers.contains("behind"), "{trackers}");
    assert!(page.body("activity").contains("All 143 events are counted. 100 of them have no timestamp"));
}

#[test]
fn rows_that_cannot_be_decoded_are_shown_and_the_page_goes_on() {
    let sandbox = bank();
    sandbox.execute(
        "UPDATE stored_events SET state = CAST('{' AS BLOB) WHERE rowid = 2; \
         UPDATE stored_events SET originator_id = 'none' WHERE rowid = 30",
    );
    let page = Page::on_bank(&sandbox);
    let log = page.body("log");
    assert_eq!(
        log.matches("<tr>").count(),
        43 + 1 + 2,
        "all rows, a head, and the templates of the live tail"
    );
    assert_eq!(log.matches("Unreadable: </strong><span class=\"reason\">").count(), 2 + 1, "{log}");
    assert!(log.contains("the state is not JSON: "), "{log}");
    let aggregate = page.body(&format!("aggregate?id={ACCOUNT}&left=2&right=3"));
    assert!(aggregate.contains("the state is not JSON: "), "{aggregate}");
    let ids: Vec<_> = page
        .live("after=0")
        .filter(|line| line.starts_with("id: "))
        .take(43)
        .map(|line| line[4..].to_owned())
        .collect();
    assert_eq!(ids, (1..=43).map(|id| id.to_string()).collect::<Vec<_>>());
    let unreadable = page.live("after=29").find(|line| line.starts_with("data: ")).unwrap();
    assert!(unreadable.contains("\"reason\":"), "{unreadable}");
}

#[test]
fn encrypted_and_compressed_states_are_readable_with_the_key() {
    let mut sandbox = Sandbox::with_python_database("sqlite-9.5-aes256-zlib");
    let expected = std::fs::read(crate::support::python("sqlite-9.5-aes256-zlib.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    sandbox.set("COMPRESSOR_TOPIC", "zlib");
    let without_key = Page::on_bank(&sandbox);
    assert!(without_key.body("log").contains("Unreadable: "));
    let key = expected["env"]["CIPHER_KEY"].as_str().unwrap();
    sandbox.set("CIPHER_TOPIC", "eventsourcing.cipher:AESCipher");
    sandbox.set("CIPHER_KEY", key);
    let page = Page::on_bank(&sandbox);
    for path in ["log", "topics", "trackers", "activity"] {
        assert!(!page.body(path).contains(key), "{path}: the key is not in a page");
    }
    assert!(page.body("log").contains("&quot;owner&quot;: &quot;Alice&quot;"));
}

#[test]
fn live_tails_are_bounded_and_end_with_the_tool() {
    let sandbox = bank();
    let mut page = Page::on_bank(&sandbox);
    let mut tails: Vec<_> = (0..16).map(|_| page.live("after=42")).collect();
    for tail in &mut tails {
        assert!(tail.any(|line| line == "id: 43"));
    }
    let mut refused = page.live("after=42");
    assert_eq!(refused.next().unwrap(), "HTTP/1.1 503 Service Unavailable");
    assert!(refused.any(|line| line.contains("Too many live tails")));
    sandbox.execute(
        "INSERT INTO stored_events SELECT originator_id, 99, topic, state FROM stored_events WHERE rowid = 1",
    );
    for tail in &mut tails {
        assert!(tail.any(|line| line == "id: 44"));
    }
    let pid = Pid::from_child(&page.running.0);
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(page.running.0.wait().unwrap().code(), Some(0));
    assert!(tails.into_iter().all(|tail| tail.count() < 10), "the streams end");
}

#[test]
fn connections_without_a_request_are_bounded_and_end() {
    let sandbox = bank();
    let page = Page::on_bank(&sandbox);
    let connect = |_| TcpStream::connect(("127.0.0.1", page.port)).unwrap();
    // The connections that are held end after some time, in which a slow machine may not get to the request.
    let refused = (0..5).find_map(|_| {
        let _held: Vec<_> = (0..64).map(connect).collect();
        let response = page.get("log");
        (response.status != 200).then_some(response)
    });
    let refused = refused.unwrap();
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.body.contains("Too many connections are open"), "{refused:?}");
    assert!(refused.head.contains("\r\nconnection: close"), "{refused:?}");
    let mut half_open: Vec<_> = (0..300).map(connect).collect();
    half_open[0].write_all(b"GET /log HTTP/1.1\r\nHost: ").unwrap();
    for mut connection in half_open {
        assert_eq!(connection.read(&mut [0]).unwrap_or(0), 0, "it is closed");
    }
    assert!(page.body("log").contains("bank:Account"));
}

#[test]
fn a_request_with_a_long_head_is_refused() {
    let sandbox = bank();
    let page = Page::on_bank(&sandbox);
    let mut stream = TcpStream::connect(("127.0.0.1", page.port)).unwrap();
    // The server closes the connection before it has read all, which may also break the response off.
    let request = format!("GET / HTTP/1.1\r\nCookie: {}\r\n\r\n", "x".repeat(300 << 10));
    let _ = stream.write_all(request.as_bytes());
    let status = status(&stream);
    assert!(["", "HTTP/1.1 431 Request Header Fields Too Large\r\n"].contains(&&*status), "{status}");
    assert!(page.body("log").contains("bank:Account"));
}

/// The status line of a response; empty if the connection was closed.
fn status(stream: &TcpStream) -> String {
    let mut line = String::new();
    let _ = BufReader::with_capacity(16, stream).read_line(&mut line);
    line
}

/// Returns the responses that are successes, which are so many. The others are refusals, or closed.
fn served(streams: &[TcpStream], expected: usize) -> Vec<&TcpStream> {
    let mut served = Vec::new();
    for stream in streams {
        match &*status(stream) {
            "HTTP/1.1 200 OK\r\n" => served.push(stream),
            other => assert!(["HTTP/1.1 503 Service Unavailable\r\n", ""].contains(&other), "{other}"),
        }
    }
    assert_eq!(served.len(), expected);
    served
}

#[test]
fn slow_readers_hold_a_bounded_number_of_pages() {
    let sandbox = bank();
    // Quotes are longer in a page.
    let state = format!("{{\"note\": \"{}\"}}", "\\\"".repeat(40_000));
    sandbox.execute(&format!("UPDATE stored_events SET state = CAST('{state}' AS BLOB)"));
    let page = Page::on_bank(&sandbox);
    let readers: Vec<_> = (0..40).map(|_| page.send_get("log")).collect();
    served(&readers, 8);
    let refused = page.get("log");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.body.contains("Too many pages are open"), "{refused:?}");
    let tails: Vec<_> = (0..20).map(|_| page.send_get("live")).collect();
    served(&tails, 16);
    #[cfg(target_os = "linux")]
    {
        let status = fs::read_to_string(format!("/proc/{}/status", page.running.0.id())).unwrap();
        let (_, peak) = status.split_once("VmHWM:").unwrap();
        let kilobytes: u64 = peak.split_whitespace().next().unwrap().parse().unwrap();
        assert!(kilobytes < 512 << 10, "{kilobytes} kB");
    }
    drop(readers);
    assert!(page.body("log").contains("bank:Account"));
}

#[test]
fn hundreds_of_requests_use_a_bounded_number_of_sessions() {
    let Some(schema) = Schema::with_python_database() else { return };
    let sandbox = schema.sandbox();
    let page = Page::start(&sandbox, &["--application", "bank"]);
    let tails: Vec<_> = (0..300).map(|_| page.send_get("live?after=47")).collect();
    let followers = served(&tails, 16);
    let pages: Vec<_> = (0..40).map(|_| page.send_get("log")).collect();
    let answered = pages.iter().map(status).filter(|status| status.contains("200")).count();
    assert!(answered >= 8, "{answered}");
    // The pool of the log, and the session of the catalog.
    let name = &schema.name;
    let sessions = schema.query(&format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{name}%' AND pid <> pg_backend_pid()"
    ));
    let sessions: i64 = sqlx::Row::get(&sessions.unwrap(), 0);
    assert!((1..=16).contains(&sessions), "{sessions}");
    schema.execute(&format!(
        "INSERT INTO {name}.bank_events (originator_id, originator_version, topic, state) \
         VALUES (gen_random_uuid(), 1, 'bank:Followed', '{{}}')"
    ));
    for tail in followers {
        let mut lines = BufReader::new(tail).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("bank:Followed")));
    }
}

#[test]
fn pages_of_a_postgres_database() {
    let Some(schema) = Schema::with_python_database() else { return };
    let mut sandbox = schema.sandbox();
    sandbox.set("BANK_UNUSED", "1");
    let page = Page::start(&sandbox, &["--application", "bank"]);
    let log = page.body("log?order=oldest");
    assert!(log.contains("48 events, ids 1 to 48, oldest first"), "{log}");
    let (_, rest) = log.split_once("aggregate?id=").unwrap();
    let aggregate = &rest[..36];
    assert!(
        page.body(&format!("log?aggregate={aggregate}&topic=bank:Account.Opened")).contains("1 event, ids")
    );
    assert!(page.body(&format!("aggregate?id={aggregate}")).contains("Attributes of the two states"));
    assert!(page.body("topics").contains("bank:Account.Verified"));
    assert!(page.body("trackers").contains("other"));
    assert!(page.body("activity").contains("All 48 events are counted."));
    let name = &schema.name;
    let insert = |topic: &str| {
        schema.execute(&format!(
            "INSERT INTO {name}.bank_events (originator_id, originator_version, topic, state) \
             VALUES (gen_random_uuid(), 1, '{topic}', '{{\"note\": \"{SCRIPT2}\"}}')",
        ));
    };
    let mut tail = page.live("after=48&topic=bank:Followed");
    insert("bank:Other");
    insert("bank:Followed");
    let followed = tail.find(|line| line.starts_with("data: ")).unwrap();
    assert!(followed.contains("bank:Followed") && followed.contains("\"version\":1"), "{followed}");
    assert!(!page.body("log").contains("<script>"));
    assert_eq!(page.request("POST", &page.directory, &[("Host", &page.host())]).status, 405);
    assert_eq!(page.request("GET", &page.directory, &[("Host", &page.host())]).status, 403);
}

/// Markup without quotes, which the statement has.
const SCRIPT2: &str = "<script>alert(1)</script>";
