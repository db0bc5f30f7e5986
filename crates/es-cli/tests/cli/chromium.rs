//! A headless Chromium, driven by the DevTools protocol over its pipe.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The longest wait for an answer or for a page: a test that hangs fails.
const TIMEOUT: Duration = Duration::from_secs(60);
const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
];

/// A browser with one page. It ends with the test.
pub(crate) struct Chromium {
    process: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    next_id: u64,
    /// The events since the start.
    events: Vec<Value>,
    _profile: TempDir,
}

impl Chromium {
    /// Starts the browser, or returns `None` if the tests are configured to run without one.
    pub(crate) fn start() -> Option<Self> {
        if env::var_os("ES_TEST_WITHOUT_CHROMIUM").is_some() {
            return None;
        }
        let profile = tempfile::tempdir().unwrap();
        // The protocol uses the file descriptors 3 and 4.
        let mut process = Command::new("sh")
            .args(["-c", "exec 3<&0 4>&1 0</dev/null 1>/dev/null && exec \"$@\"", "sh"])
            .arg(program())
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, messages) = channel();
        thread::spawn(move || {
            for message in output.split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { continue };
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let input = process.stdin.take().unwrap();
        let mut browser = Self {
            process,
            input,
            messages,
            session: String::new(),
            next_id: 0,
            events: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network", "Audits", "Accessibility", "DOM"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        // The load of the empty page is not one of those that tests wait for.
        browser.evaluate(
            "new Promise((resolve) => document.readyState === 'complete' ? resolve() : addEventListener('load', resolve))",
        );
        Some(browser)
    }

    /// Calls a method and returns its result.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.input.write_all(format!("{message}\0").as_bytes()).unwrap();
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let message = self.receive(method, deadline);
            if message["id"] == json!(id) {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
        }
    }

    /// Receives a message; an event is kept.
    fn receive(&mut self, awaited: &str, deadline: Instant) -> Value {
        let message = self.messages.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        let message = message.unwrap_or_else(|error| panic!("no message of Chromium, {awaited}: {error}"));
        if message.get("method").is_some() {
            self.events.push(message.clone());
        }
        message
    }

    /// Performs an action that loads a page, and waits until it is loaded.
    pub(crate) fn loads(&mut self, action: impl FnOnce(&mut Self)) {
        self.loads_all(1, action);
    }

    /// Performs an action that loads several pages one after the other, and waits until they are loaded.
    pub(crate) fn loads_all(&mut self, pages: usize, action: impl FnOnce(&mut Self)) {
        let expected = self.loaded() + pages;
        action(self);
        let deadline = Instant::now() + TIMEOUT;
        while self.loaded() < expected {
            self.receive("the load of a page", deadline);
        }
    }

    fn loaded(&self) -> usize {
        self.methods("Page.loadEventFired").count()
    }

    fn methods(&self, method: &str) -> impl Iterator<Item = &Value> {
        self.events.iter().filter(move |event| event["method"] == method).map(|event| &event["params"])
    }

    pub(crate) fn navigate(&mut self, url: &str) {
        self.loads(|browser| browser.go(url));
    }

    /// Begins to load a page.
    pub(crate) fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
    }

    /// Evaluates an expression of JavaScript; a promise is awaited.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let result = self.call("Runtime.evaluate", parameters);
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until a condition is true, which depends on the document alone.
    pub(crate) fn wait_until(&mut self, condition: &str) {
        self.evaluate(&format!(
            "new Promise((resolve) => {{
                const observer = new MutationObserver(() => check());
                const check = () => {{ if ({condition}) {{ observer.disconnect(); resolve(true); }} }};
                observer.observe(document, {{ subtree: true, childList: true, characterData: true, attributes: true }});
                check();
            }})"
        ));
    }

    /// Presses a key, such as `Tab`.
    pub(crate) fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Space" => (32, " "),
            "ArrowDown" => (40, ""),
            "ArrowUp" => (38, ""),
            other => panic!("key {other}"),
        };
        let name = if key == "Space" { " " } else { key };
        let mut down =
            json!({ "type": "rawKeyDown", "key": name, "code": key, "windowsVirtualKeyCode": code });
        if !text.is_empty() {
            (down["type"], down["text"]) = (json!("keyDown"), json!(text));
        }
        self.call("Input.dispatchKeyEvent", down);
        let up = json!({ "type": "keyUp", "key": name, "code": key, "windowsVirtualKeyCode": code });
        self.call("Input.dispatchKeyEvent", up);
    }

    /// Presses Tab until a condition holds for the focused element, `focused`.
    pub(crate) fn tab_to(&mut self, condition: &str) {
        for _ in 0..400 {
            self.press("Tab");
            let expression = format!("((focused) => {condition})(document.activeElement)");
            if self.evaluate(&expression) == json!(true) {
                return;
            }
        }
        panic!("no element that Tab reaches has {condition}");
    }

    pub(crate) fn insert(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    pub(crate) fn set_media(&mut self, scheme: &str, motion: &str) {
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": motion },
        ]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    pub(crate) fn set_size(&mut self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// Returns a picture of the page as PNG.
    pub(crate) fn picture(&mut self) -> Vec<u8> {
        let parameters = json!({ "format": "png", "optimizeForSpeed": false });
        let picture = self.call("Page.captureScreenshot", parameters);
        BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap()
    }

    /// Returns the errors of the console, exceptions, and violations of the policies of the page.
    pub(crate) fn complaints(&self) -> Vec<&Value> {
        let console = self.methods("Runtime.consoleAPICalled");
        let console = console.filter(|call| call["type"] == "error" || call["type"] == "warning");
        let log = self.methods("Log.entryAdded").filter(|entry| entry["entry"]["level"] != "verbose");
        let issues =
            self.methods("Audits.issueAdded").filter(|issue| issue["issue"]["code"] != "PerformanceIssue");
        console.chain(log).chain(issues).chain(self.methods("Runtime.exceptionThrown")).collect()
    }

    /// Returns the URLs that the page requested.
    pub(crate) fn requests(&self) -> impl Iterator<Item = &str> {
        self.methods("Network.requestWillBeSent").filter_map(|request| request["request"]["url"].as_str())
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> PathBuf {
    env::var_os("CHROMIUM").map_or_else(|| PathBuf::from("/usr/bin/chromium"), PathBuf::from)
}
