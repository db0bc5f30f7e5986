//! `es top`: the largest and the busiest aggregates, on a screen that follows the log.

mod reader;
mod screen;

use std::{
    io::{self, IsTerminal},
    time::Instant,
};

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt;
use ratatui::DefaultTerminal;

use self::{
    reader::Reader,
    screen::{Screen, Scroll},
};
use crate::{
    arguments::Top,
    catalog::{Order, Selection},
    color::Color,
    configuration::Settings,
    database::Database,
    diagnostics,
    failure::{Exit, Failure},
    output::Output,
};

pub(crate) async fn run(arguments: &Top, color: Color) -> Result<Exit, Failure> {
    if !arguments.once && !io::stdout().is_terminal() {
        return Err(Failure::usage("standard output is not a terminal")
            .with_hint("--once prints the aggregates as JSON lines"));
    }
    // Until the terminal is restored: the screen would hide them.
    let _warnings = (!arguments.once).then(diagnostics::keep);
    let Top { sort, window, limit, .. } = *arguments;
    let selection = Selection { order: sort, window, limit };
    let connection = &arguments.connection;
    let settings = Settings::find(connection.database.as_deref(), &connection.sources)?;
    let mut catalog = Database::open(settings.clone())?.catalog().await?;
    let ranking = catalog.ranking(selection).await?;
    if arguments.once {
        let mut output = Output::new();
        ranking.aggregates.iter().try_for_each(|aggregate| output.json(aggregate))?;
        output.flush()?;
        return Ok(Exit::Success);
    }
    let location = catalog.location().to_owned();
    let mut screen = Screen::new(&location, selection, color);
    screen.update(Some(ranking), Instant::now());
    let reader = Reader::start(settings, catalog, selection, screen.last_id())?;
    show(screen, reader).await?;
    Ok(Exit::Success)
}

/// Shows the screen until the user or a signal ends it.
async fn show(mut screen: Screen, mut reader: Reader) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut terminal = Terminal::open()?;
    let mut events = EventStream::new();
    loop {
        if let Some(line) = diagnostics::take_newest() {
            screen.warn(Some(&line));
        }
        terminal.0.draw(|frame| screen.draw(frame)).map_err(|error| unusable(&error))?;
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) if key.kind == KeyEventKind::Press => {
                    screen.warn(None);
                    match action(key) {
                        Some(Action::Quit) => return Ok(()),
                        Some(Action::Scroll(scroll)) => screen.scroll(scroll),
                        Some(Action::Sort(order)) => {
                            screen.sort(order);
                            reader.sort(order);
                        }
                        None => {}
                    }
                }
                // The size of the terminal, which the next drawing follows.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(unusable(&error)),
                None => return Ok(()),
            },
            read = reader.next() => match read {
                Some(Ok(ranking)) => screen.update(ranking, Instant::now()),
                Some(Err(failure)) => screen.fail(failure.message()),
                None => return Err(Failure::new("the reader of the database has ended")),
            },
            () = signals.next() => return Ok(()),
        }
    }
}

fn unusable(error: &io::Error) -> Failure {
    Failure::new(format!("the terminal cannot be used: {error}"))
}

/// The meaning of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Quit,
    Scroll(Scroll),
    Sort(Order),
}

fn action(key: KeyEvent) -> Option<Action> {
    Some(match key.code {
        // The terminal sends no signal for it in this mode.
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Action::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Action::Quit,
        KeyCode::Char('e') => Action::Sort(Order::Events),
        KeyCode::Char('r') => Action::Sort(Order::Recent),
        KeyCode::Char('s') => Action::Sort(Order::Size),
        KeyCode::Up | KeyCode::Char('k') => Action::Scroll(Scroll::Lines(-1)),
        KeyCode::Down | KeyCode::Char('j') => Action::Scroll(Scroll::Lines(1)),
        KeyCode::PageUp => Action::Scroll(Scroll::Pages(-1)),
        KeyCode::PageDown | KeyCode::Char(' ') => Action::Scroll(Scroll::Pages(1)),
        KeyCode::Home => Action::Scroll(Scroll::Start),
        KeyCode::End => Action::Scroll(Scroll::End),
        _ => return None,
    })
}

/// The terminal in the mode of a screen. It is restored when this is dropped, and by a panic.
struct Terminal(DefaultTerminal);

impl Terminal {
    fn open() -> Result<Self, Failure> {
        ratatui::try_init().map(Self).map_err(|error| {
            ratatui::restore();
            unusable(&error)
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// The signals that end the screen.
#[cfg(unix)]
struct Signals([tokio::signal::unix::Signal; 3]);

#[cfg(unix)]
impl Signals {
    fn new() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let receive = || {
            Ok([
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
            ])
        };
        receive().map(Self).map_err(|error: io::Error| unusable(&error))
    }

    async fn next(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// The signals that end the screen.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Result<Self, Failure> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
