//! The tool in a pseudo terminal, whose screen a terminal emulator keeps, and pictures of it.

use std::{
    fmt::Write as _,
    fs,
    io::{ErrorKind, Read, Write},
    process::{Child, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use pty_process::{
    Size,
    blocking::{Command, Pty, open},
};
use vt100::{Cell, Color, Parser};

use crate::support::Sandbox;

/// The time after which a test has failed.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A running tool with its terminal. The tool ends with the test.
pub(crate) struct Terminal {
    pty: Arc<Pty>,
    output: mpsc::Receiver<Vec<u8>>,
    /// All bytes of the output.
    pub(crate) bytes: Vec<u8>,
    parser: Parser,
    pub(crate) child: Child,
}

impl Terminal {
    /// Starts the tool on a terminal of so many lines and columns.
    pub(crate) fn start(sandbox: &Sandbox, size: (u16, u16), arguments: &[&str]) -> Self {
        Self::start_with(sandbox, size, arguments, None)
    }

    /// The same, with a pipe for standard output.
    pub(crate) fn start_piped(sandbox: &Sandbox, size: (u16, u16), arguments: &[&str]) -> Self {
        Self::start_with(sandbox, size, arguments, Some(Stdio::piped()))
    }

    fn start_with(sandbox: &Sandbox, size: (u16, u16), arguments: &[&str], stdout: Option<Stdio>) -> Self {
        let (pty, pts) = open().unwrap();
        pty.resize(Size::new(size.0, size.1)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_es"))
            .args(arguments)
            .current_dir(sandbox.path(""))
            .env_clear()
            .envs(sandbox.variables())
            .env("TERM", "xterm-256color");
        if let Some(stdout) = stdout {
            command = command.stdout(stdout);
        }
        let child = command.spawn(pts).unwrap();
        let (pty, (sender, output)) = (Arc::new(pty), mpsc::channel());
        let reader = Arc::clone(&pty);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal without processes is an error of the read.
            while let Ok(count @ 1..) = (&*reader).read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut parser = Parser::new(size.0, size.1, 0);
        let prompt = format!("\u{1b}[2m$ \u{1b}[0mes {}\r\n", quoted(arguments));
        parser.process(prompt.as_bytes());
        Self { pty, output, bytes: Vec::new(), parser, child }
    }

    /// Waits until the screen has a text.
    pub(crate) fn wait_for(&mut self, text: &str) {
        let end = Instant::now() + TIMEOUT;
        while !self.text().contains(text) {
            match self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.receive(&bytes),
                Err(error) => panic!("{text:?} does not appear: {error}\n{}", self.text()),
            }
        }
    }

    /// Waits until the tool has ended; returns its exit code.
    pub(crate) fn wait_for_end(&mut self) -> Option<i32> {
        let end = Instant::now() + TIMEOUT;
        loop {
            match self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.receive(&bytes),
                Err(mpsc::RecvTimeoutError::Disconnected) => return self.child.wait().unwrap().code(),
                Err(error) => panic!("the tool does not end: {error}\n{}", self.text()),
            }
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.parser.process(bytes);
    }

    /// Presses keys.
    pub(crate) fn press(&self, keys: &str) {
        (&*self.pty).write_all(keys.as_bytes()).unwrap();
    }

    pub(crate) fn text(&self) -> String {
        self.parser.screen().contents()
    }

    /// Returns whether the tool has left the terminal as it was: the usual screen, with a cursor.
    pub(crate) fn is_restored(&self) -> bool {
        let screen = self.parser.screen();
        !screen.alternate_screen() && !screen.hide_cursor()
    }

    /// Compares the screen with the picture of this label in the chapter of the book; with
    /// `UPDATE_SNAPSHOTS=1`, replaces the picture.
    pub(crate) fn assert_picture(&self, label: &str) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../es-persistence/src/guide/operating.md");
        let chapter = fs::read_to_string(path).unwrap();
        let label = format!("aria-label=\"{label}\"");
        let at = chapter.find(&label).unwrap_or_else(|| panic!("the chapter has no picture with {label}"));
        let begin = chapter[..at].rfind("<svg").unwrap();
        let end = at + chapter[at..].find("</svg>").unwrap();
        // The version of SQLite changes with its crate.
        let picture = picture(&self.parser, &label).replace(es_sqlite::rusqlite::version(), "3.50.4");
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            fs::write(path, format!("{}{picture}{}", &chapter[..begin], &chapter[end..])).unwrap();
        } else {
            let message = "the picture differs; if that is intended, run the test with UPDATE_SNAPSHOTS=1";
            assert!(chapter[begin..end] == picture, "{message}:\n{}", self.text());
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn quoted(arguments: &[&str]) -> String {
    let quote = |argument: &&str| {
        if argument.contains([' ', '{']) { format!("'{argument}'") } else { (*argument).to_owned() }
    };
    arguments.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// The size of a cell in a picture.
const WIDTH: usize = 8;
const HEIGHT: usize = 18;

/// Returns a screen as SVG, without its end, and without empty lines, which would end it in Markdown.
fn picture(parser: &Parser, label: &str) -> String {
    let (rows, columns) = parser.screen().size();
    let (width, height) = (usize::from(columns) * WIDTH + 20, usize::from(rows) * HEIGHT + 20);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" {label} \
         font-family=\"monospace\" font-size=\"13\" fill=\"#d7dce5\" style=\"max-width:{width}px\">\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"#1d222b\"/>\n"
    );
    for row in 0..rows {
        for (column, style, text) in runs(parser, row, columns) {
            let (x, y) = (10 + usize::from(column) * WIDTH, 22 + usize::from(row) * HEIGHT);
            let length = text.chars().count() * WIDTH;
            let text = text.replace('&', "&amp;").replace('<', "&lt;");
            writeln!(svg, "<text x=\"{x}\" y=\"{y}\" textLength=\"{length}\"{style}>{text}</text>").unwrap();
        }
    }
    svg
}

/// Returns the parts of a line with one style and without two spaces, each with its column.
fn runs(parser: &Parser, row: u16, columns: u16) -> Vec<(u16, &'static str, String)> {
    let mut runs: Vec<(u16, &'static str, String)> = Vec::new();
    let mut is_open = false;
    for column in 0..columns {
        let cell = parser.screen().cell(row, column).unwrap();
        let text = if cell.has_contents() { cell.contents() } else { " " };
        let style = style(cell);
        match runs.last_mut() {
            Some((_, last, run)) if is_open && *last == style => run.push_str(text),
            _ if text == " " => continue,
            _ => runs.push((column, style, text.to_owned())),
        }
        is_open = runs.last().is_some_and(|(.., run)| !run.ends_with("  "));
    }
    for (.., run) in &mut runs {
        run.truncate(run.trim_end().len());
    }
    runs
}

fn style(cell: &Cell) -> &'static str {
    match (cell.fgcolor(), cell.bold(), cell.dim()) {
        (Color::Idx(1), ..) => " fill=\"#f07178\"",
        (Color::Idx(6), false, _) => " fill=\"#6cc7d8\"",
        (Color::Idx(6), true, _) => " fill=\"#6cc7d8\" font-weight=\"bold\"",
        (_, true, _) => " font-weight=\"bold\"",
        (_, _, true) => " opacity=\"0.6\"",
        _ => "",
    }
}

/// Reads a pipe of the tool to its end.
pub(crate) fn read_to_end(mut pipe: impl Read) -> String {
    let mut text = String::new();
    match pipe.read_to_string(&mut text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => panic!("{error}"),
        _ => text,
    }
}
