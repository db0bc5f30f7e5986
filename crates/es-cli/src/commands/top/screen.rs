//! The screen of `es top`: the newest ranking, and the visible part of it.

use std::time::{Duration, Instant};

use es_core::uuid::Uuid;
use ratatui::{
    Frame,
    layout::{Constraint, Layout},
    style::{Color as Paint, Modifier, Style},
    text::{Line, Span},
    widgets::{Row, Table},
};

use crate::{
    catalog::{Aggregate, Order, Ranking, Selection},
    color::Color,
    output::{printable, size},
};

/// The shortest time over which a rate is computed.
const RATE_TIME: Duration = Duration::from_millis(500);
const KEYS: &str = "sort by e events, r recent, s size   ↑↓ PgUp PgDn scroll   q quit";

/// The state of the screen.
pub(super) struct Screen {
    location: String,
    selection: Selection,
    color: Color,
    last_id: i64,
    aggregates: Vec<Aggregate>,
    /// The last id at a moment, from which the rate is computed.
    base: Option<(Instant, i64)>,
    ids_per_second: Option<f64>,
    /// The index of the first visible aggregate.
    offset: usize,
    /// The number of visible aggregates, as of the last drawing.
    height: usize,
    failure: Option<String>,
    warning: Option<String>,
}

/// A movement of the visible part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scroll {
    Lines(isize),
    Pages(isize),
    Start,
    End,
}

impl Screen {
    pub(super) fn new(location: &str, selection: Selection, color: Color) -> Self {
        Self {
            location: printable(location),
            selection,
            color,
            last_id: 0,
            aggregates: Vec::new(),
            base: None,
            ids_per_second: None,
            offset: 0,
            height: 0,
            failure: None,
            warning: None,
        }
    }

    pub(super) fn last_id(&self) -> i64 {
        self.last_id
    }

    /// Shows the ranking of a read, or the one before it if the log has not changed.
    pub(super) fn update(&mut self, ranking: Option<Ranking>, now: Instant) {
        self.failure = None;
        if let Some(ranking) = ranking {
            self.last_id = ranking.last_id;
            // The order may have changed during the read; the ranking in the new order follows.
            if ranking.order == self.selection.order {
                self.aggregates = ranking.aggregates;
                self.offset = self.offset.min(self.last_offset());
            }
        }
        let (begin, first) = *self.base.get_or_insert((now, self.last_id));
        let elapsed = now.saturating_duration_since(begin);
        if elapsed >= RATE_TIME {
            self.ids_per_second = Some((self.last_id - first) as f64 / elapsed.as_secs_f64());
            self.base = Some((now, self.last_id));
        }
    }

    /// Shows the failure of a read, until another one succeeds.
    pub(super) fn fail(&mut self, message: &str) {
        self.failure = Some(printable(message));
    }

    /// Shows a warning of the library, or none.
    pub(super) fn warn(&mut self, line: Option<&str>) {
        self.warning = line.map(|line| printable(line.trim()));
    }

    /// Changes the order; the aggregates follow with the next ranking.
    pub(super) fn sort(&mut self, order: Order) {
        self.selection.order = order;
        self.offset = 0;
    }

    pub(super) fn scroll(&mut self, scroll: Scroll) {
        let last = self.last_offset();
        let moved = |lines: isize| self.offset.saturating_add_signed(lines).min(last);
        self.offset = match scroll {
            Scroll::Lines(lines) => moved(lines),
            Scroll::Pages(pages) => moved(pages.saturating_mul(self.height.max(1).cast_signed())),
            Scroll::Start => 0,
            Scroll::End => last,
        };
    }

    fn last_offset(&self) -> usize {
        self.aggregates.len().saturating_sub(self.height.max(1))
    }

    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let rows = Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]);
        let [head, body, foot] = rows.areas(frame.area());
        // The first line of the table has the names of its columns.
        self.height = usize::from(body.height.saturating_sub(1));
        self.offset = self.offset.min(self.last_offset());
        frame.render_widget(self.head(), head);
        frame.render_widget(self.table(), body);
        frame.render_widget(self.foot(), foot);
    }

    fn head(&self) -> Line<'_> {
        let rate = self.ids_per_second.map_or_else(String::new, |rate| format!(", {rate:.0} events/s"));
        let Self { last_id, selection: Selection { window, .. }, .. } = self;
        Line::from(vec![
            Span::raw(format!("last id {last_id}{rate}; recent are the last {window} ids   ")),
            Span::styled(&*self.location, Modifier::BOLD),
        ])
    }

    fn table(&self) -> Table<'_> {
        let column = |title: &str, width: usize, order: Order| {
            let is_sorted = self.selection.order == order;
            let title = if is_sorted { format!("▼ {title}") } else { title.to_owned() };
            Line::styled(format!("{title:>width$}"), if is_sorted { self.accent() } else { Style::new() })
        };
        let head = Row::new([
            Line::raw("AGGREGATE"),
            column("EVENTS", NUMBER, Order::Events),
            column("RECENT", NUMBER, Order::Recent),
            column("SIZE", NUMBER, Order::Size),
        ]);
        let row = |aggregate: &Aggregate| {
            let Aggregate { originator_id, events, recent_events, recent_bytes } = aggregate;
            Row::new([
                named(originator_id),
                format!("{events:>NUMBER$}"),
                format!("{recent_events:>NUMBER$}"),
                format!("{:>NUMBER$}", size(*recent_bytes)),
            ])
        };
        let visible = self.aggregates.iter().skip(self.offset).take(self.height);
        let width = u16::try_from(NUMBER).unwrap_or(u16::MAX);
        let widths = [Constraint::Length(36)].into_iter().chain([Constraint::Length(width); 3]);
        Table::new(visible.map(row), widths).header(head.style(Modifier::BOLD)).column_spacing(2)
    }

    fn foot(&self) -> Line<'_> {
        let problem = self.failure.as_ref().or(self.warning.as_ref());
        if let Some(problem) = problem {
            let style = if self.color.is_on_stdout() { Style::new().fg(Paint::Red) } else { Style::new() };
            return Line::styled(&**problem, style);
        }
        let shown = self.aggregates.len().min(self.offset + self.height);
        let first = (self.offset + 1).min(shown);
        let text = format!("{first} to {shown} of {}   {KEYS}", self.aggregates.len());
        Line::styled(text, Modifier::DIM)
    }

    fn accent(&self) -> Style {
        if self.color.is_on_stdout() { Style::new().fg(Paint::Cyan) } else { Style::new() }
    }
}

/// The width of a column of numbers.
const NUMBER: usize = 12;

/// Returns an id in the form that `es show` prints, if it is a UUID.
fn named(originator_id: &str) -> String {
    Uuid::try_parse(originator_id).map_or_else(|_| printable(originator_id), |id| id.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::color::ColorOption;

    fn ranking(count: i64, last_id: i64) -> Ranking {
        let aggregate = |index: i64| Aggregate {
            originator_id: format!("{index:032x}"),
            events: 1_000 - index,
            recent_events: 10 * index,
            recent_bytes: 1_000 * index,
        };
        Ranking { order: Order::Events, last_id, aggregates: (0..count).map(aggregate).collect() }
    }

    /// A screen of 80 columns and 8 lines with a number of aggregates.
    struct Shown {
        screen: Screen,
        terminal: Terminal<TestBackend>,
        begin: Instant,
    }

    impl Shown {
        fn new(count: i64) -> Self {
            let selection = Selection { order: Order::Events, window: 500, limit: 100 };
            let mut screen = Screen::new("bank.db", selection, Color::new(ColorOption::Never));
            let begin = Instant::now();
            screen.update(Some(ranking(count, 2_000)), begin);
            Self { screen, terminal: Terminal::new(TestBackend::new(80, 8)).unwrap(), begin }
        }

        /// Draws, and returns the lines without their last spaces.
        fn lines(&mut self) -> Vec<String> {
            self.terminal.draw(|frame| self.screen.draw(frame)).unwrap();
            let buffer = self.terminal.backend().buffer();
            let line = |row: &[ratatui::buffer::Cell]| {
                row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned()
            };
            buffer.content().chunks(80).map(line).collect()
        }

        /// The first and the last visible number of events.
        fn visible(&mut self) -> (String, String) {
            let lines = self.lines();
            let events = |line: &str| line.split_whitespace().nth(1).unwrap_or_default().to_owned();
            (events(&lines[2]), events(&lines[6]))
        }
    }

    #[test]
    fn the_screen_lists_aggregates() {
        let lines = Shown::new(3).lines();
        let expected = [
            "last id 2000; recent are the last 500 ids   bank.db",
            "AGGREGATE                                 ▼ EVENTS        RECENT          SIZE",
            "00000000-0000-0000-0000-000000000000          1000             0           0 B",
            "00000000-0000-0000-0000-000000000001           999            10        1000 B",
            "00000000-0000-0000-0000-000000000002           998            20       2.0 KiB",
            "",
            "",
            "1 to 3 of 3   sort by e events, r recent, s size   ↑↓ PgUp PgDn scroll   q quit",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_screen_scrolls_by_lines_and_pages() {
        let mut shown = Shown::new(23);
        let pair = |first: &str, last: &str| (first.to_owned(), last.to_owned());
        assert_eq!(shown.visible(), pair("1000", "996"));
        for (scroll, first, last) in [
            (Scroll::Lines(1), "999", "995"),
            (Scroll::Lines(-2), "1000", "996"),
            (Scroll::Pages(1), "995", "991"),
            (Scroll::End, "982", "978"),
            (Scroll::Pages(1), "982", "978"),
            (Scroll::Start, "1000", "996"),
        ] {
            shown.screen.scroll(scroll);
            assert_eq!(shown.visible(), pair(first, last), "{scroll:?}");
        }
        // The visible part stays within a ranking that has become shorter.
        shown.screen.scroll(Scroll::End);
        shown.screen.update(Some(ranking(6, 2_000)), shown.begin);
        assert_eq!(shown.visible(), pair("999", "995"));
    }

    #[test]
    fn the_head_has_the_rate_of_the_log() {
        let mut shown = Shown::new(1);
        shown.screen.update(Some(ranking(1, 2_100)), shown.begin + Duration::from_secs(2));
        assert!(shown.lines()[0].contains("last id 2100, 50 events/s"));
        shown.screen.update(None, shown.begin + Duration::from_secs(3));
        assert!(shown.lines()[0].contains("last id 2100, 0 events/s"));
    }

    #[test]
    fn the_sorted_column_is_marked() {
        let mut shown = Shown::new(1);
        shown.screen.sort(Order::Size);
        assert!(shown.lines()[1].ends_with("EVENTS        RECENT        ▼ SIZE"));
        // A ranking in the order before it arrives late.
        shown.screen.update(Some(ranking(5, 2_000)), shown.begin);
        assert!(shown.lines()[7].starts_with("1 to 1 of 1 "));
    }

    #[test]
    fn failures_and_warnings_are_in_the_last_line() {
        let mut shown = Shown::new(1);
        shown.screen.warn(Some("WARN slow\u{1b}[31m\n"));
        assert_eq!(shown.lines()[7], "WARN slow\\u{1b}[31m");
        shown.screen.fail("connecting to db:5432: refused");
        assert_eq!(shown.lines()[7], "connecting to db:5432: refused");
        shown.screen.warn(None);
        shown.screen.update(None, shown.begin);
        assert!(shown.lines()[7].starts_with("1 to 1 of 1"));
    }
}
