//! A plot of the events over time.

use std::sync::Arc;

use axum::{
    extract::{Query, State},
    response::Html,
};
use jiff::{Timestamp, tz::Offset};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    page::{Problem, capitalized, grouped, page as document},
    source::{App, Source},
};
use crate::catalog::IdSelection;

/// The number of events whose times are read. More are estimated.
const SAMPLE: usize = 500;
/// The largest number of bars.
const BARS: i64 = 60;
/// The lengths of a bar in milliseconds.
const STEPS: [i64; 20] = [
    1,
    10,
    100,
    1_000,
    5_000,
    15_000,
    60_000,
    5 * 60_000,
    15 * 60_000,
    HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    7 * DAY,
    30 * DAY,
    91 * DAY,
    365 * DAY,
    3_650 * DAY,
];
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// The size of the plot, and the margins of its axes.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 32.0;
const TOP: f64 = 12.0;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    newest: String,
}

/// The numbers of events in equal parts of time.
struct Plot {
    /// The beginning of the first bar in milliseconds.
    start: i64,
    /// The length of a bar in milliseconds.
    step: i64,
    counts: Vec<f64>,
}

pub(super) async fn page(
    State(app): State<Arc<App>>,
    Query(parameters): Query<Parameters>,
) -> Result<Html<String>, Problem> {
    let source = &app.source;
    let newest = super::filter::id("Newest", &parameters.newest)?.filter(|newest| *newest > 0);
    let head = source.head().await?;
    let first = match newest {
        Some(newest) => source.first_id().await?.max(head.saturating_sub(newest - 1)),
        None => source.first_id().await?,
    };
    let (ids, is_exact) = sample(source, first, head).await?;
    let times = source.times(ids).await;
    let untimed = times.iter().filter(|(_, time)| time.is_none()).count();
    let read = times.len();
    let content = html! {
        form.filter action="activity" aria-label="Extent" {
            p.field {
                label for="newest" { "Events" }
                select id="newest" name="newest" {
                    @for (value, name) in [
                        ("", "The whole log"),
                        ("500", "The newest 500 ids"),
                        ("10000", "The newest 10,000 ids"),
                        ("1000000", "The newest 1,000,000 ids"),
                    ] {
                        option value=(value) selected[value == parameters.newest] { (name) }
                    }
                }
            }
            p.buttons { button { "Show" } }
        }
        p {
            "Ids " (grouped(first)) " to " (grouped(head)) ", by the timestamps of the states. "
            @if is_exact {
                "All " (grouped(read as i64)) " events are counted."
            } @else {
                "Estimated from " (grouped(read as i64)) " events that are evenly distributed over these ids."
            }
            @if untimed > 0 {
                " " (grouped(untimed as i64)) " of them have no timestamp that can be read, and are left out."
            }
        }
        @match Plot::new(&times, (!is_exact).then_some(first)) {
            Some(plot) => (figure(&plot, is_exact)),
            None => p.empty { "There are no events with timestamps." },
        }
    };
    Ok(document(source.location(), "activity", "Activity", &content))
}

/// Returns the ids of all events between two ids, or, if they are many, of some: the first event of each of
/// equal parts.
async fn sample(source: &Source, first: i64, last: i64) -> Result<(Vec<i64>, bool), Problem> {
    let all = IdSelection { first, limit: SAMPLE + 1, ..IdSelection::all(last) };
    let ids = source.ids(&all).await?;
    if ids.len() <= SAMPLE {
        return Ok((ids, true));
    }
    let parts = i128::try_from(SAMPLE).unwrap_or(1);
    let length = i128::from(last) - i128::from(first);
    let starts = (1..=parts).map(|part| i128::from(first) + length * part / parts);
    let starts: Vec<_> = starts.filter_map(|start| i64::try_from(start).ok()).collect();
    let ids = source
        .catalog(async |catalog| {
            let mut ids = Vec::with_capacity(starts.len());
            for start in starts {
                let next = IdSelection { first: start, limit: 1, ..IdSelection::all(last) };
                ids.extend(catalog.ids(&next).await?);
            }
            ids.dedup();
            Ok(ids)
        })
        .await?;
    Ok((ids, false))
}

impl Plot {
    /// Counts events by their times. An event of a sample counts for the ids since the one before it, of
    /// which the first is `sample_start`.
    fn new(times: &[(i64, Option<Timestamp>)], sample_start: Option<i64>) -> Option<Self> {
        let mut previous = sample_start.map(|first| first.saturating_sub(1));
        let mut weighted = Vec::with_capacity(times.len());
        for (id, time) in times {
            let weight = previous.map_or(1, |previous| id.saturating_sub(previous)) as f64;
            previous = previous.map(|_| *id);
            weighted.extend(time.map(|time| (time.as_millisecond(), weight)));
        }
        let start = weighted.iter().map(|(time, _)| *time).min()?;
        let end = weighted.iter().map(|(time, _)| *time).max()?;
        let is_enough = |step: &i64| end.div_euclid(*step) - start.div_euclid(*step) < BARS;
        let step = STEPS.into_iter().find(is_enough).unwrap_or((end - start) / (BARS - 1) + 1);
        let (begin, bars) = (start.div_euclid(step), end.div_euclid(step) - start.div_euclid(step) + 1);
        let mut counts = vec![0.0; usize::try_from(bars).unwrap_or(1)];
        for (time, weight) in weighted {
            let bar = usize::try_from(time.div_euclid(step) - begin).unwrap_or(0);
            if let Some(count) = counts.get_mut(bar) {
                *count += weight;
            }
        }
        Some(Self { start: begin * step, step, counts })
    }

    /// Returns the beginning of a bar as text.
    fn label(&self, bar: usize) -> String {
        let start = self.start + self.step * bar as i64;
        let Ok(time) = Timestamp::from_millisecond(start) else { return String::new() };
        let time = Offset::UTC.to_datetime(time);
        let format = match self.step {
            ..1_000 => "%H:%M:%S%.3f",
            1_000..60_000 => "%H:%M:%S",
            60_000..DAY => "%b %-d %H:%M",
            _ => "%Y-%m-%d",
        };
        time.strftime(format).to_string()
    }

    /// Returns the beginning of a bar as a whole time.
    fn time(&self, bar: usize) -> String {
        let start = self.start + self.step * bar as i64;
        Timestamp::from_millisecond(start).map_or_else(|_| String::new(), |time| time.to_string())
    }
}

/// Returns the plot and, for readers who do not see it, its table.
fn figure(plot: &Plot, is_exact: bool) -> Markup {
    let highest = plot.counts.iter().copied().fold(1.0, f64::max);
    let scale = round_up(highest);
    let bar_width = (WIDTH - LEFT) / plot.counts.len() as f64;
    let height = |count: f64| (HEIGHT - BOTTOM - TOP) * count / scale;
    let gap = (bar_width * 0.15).min(3.0);
    let labels = (plot.counts.len() / 6).max(1);
    let total: f64 = plot.counts.iter().sum();
    let number = |count: f64| grouped(count.round() as i64);
    let about = if is_exact { "" } else { "about " };
    let title = format!(
        "{about}{} events in {} bars of {}, the highest of {about}{}",
        number(total),
        plot.counts.len(),
        duration(plot.step),
        number(highest)
    );
    html! {
        figure {
            div.scroll role="region" aria-label="Plot" tabindex="0" {
                svg.plot role="img" aria-label=(title) viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } {
                    @for part in 0..=4 {
                        @let value = scale * f64::from(part) / 4.0;
                        @let y = HEIGHT - BOTTOM - height(value);
                        line.grid x1=(LEFT) x2=(WIDTH) y1=(y) y2=(y) {}
                        @if value.fract() == 0.0 {
                            text.axis x=(LEFT - 8.0) y=(y + 4.0) text-anchor="end" { (number(value)) }
                        }
                    }
                    @for (bar, count) in plot.counts.iter().enumerate() {
                        @let x = LEFT + bar_width * bar as f64;
                        @if *count > 0.0 {
                            rect.bar x=(format!("{:.2}", x + gap / 2.0)) width=(format!("{:.2}", bar_width - gap))
                                y=(format!("{:.2}", HEIGHT - BOTTOM - height(*count).max(1.0)))
                                height=(format!("{:.2}", height(*count).max(1.0))) {
                                title { (plot.time(bar)) ": " (about) (number(*count)) }
                            }
                        }
                        @if bar % labels == 0 && (plot.counts.len() - bar) * 6 >= plot.counts.len() {
                            text.axis x=(format!("{x:.2}")) y=(HEIGHT - 10.0) { (plot.label(bar)) }
                        }
                    }
                }
            }
            figcaption { (capitalized(&title)) "; times of UTC." }
        }
        details.data {
            summary { "The numbers of the plot" }
            table {
                caption { "Events by time (UTC)" }
                thead { tr { th scope="col" { "Beginning" } th.number scope="col" { "Events" } } }
                tbody {
                    @for (bar, count) in plot.counts.iter().enumerate() {
                        @if *count > 0.0 {
                            tr { th scope="row" { (plot.time(bar)) } td.number { (about) (number(*count)) } }
                        }
                    }
                }
            }
        }
    }
}

/// Returns the next number of the form 1, 2, 4 or 8 with zeros, at least 4: an axis of four equal parts.
fn round_up(number: f64) -> f64 {
    let power = 10_f64.powf(number.max(1.0).log10().floor());
    let mut rounded = [1.0, 2.0, 4.0, 8.0, 10.0].into_iter().map(|factor| factor * power);
    rounded.find(|rounded| *rounded >= number).unwrap_or(number).max(4.0)
}

fn duration(milliseconds: i64) -> String {
    let units = [(DAY, "d"), (HOUR, "h"), (60_000, "min"), (1_000, "s"), (1, "ms")];
    let unit = units.into_iter().find(|(length, _)| milliseconds % length == 0);
    unit.map_or_else(String::new, |(length, name)| format!("{} {name}", grouped(milliseconds / length)))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{Plot, round_up};

    #[test]
    fn events_are_counted_by_time_and_by_the_ids_before_them() {
        let time = |seconds| Some(Timestamp::from_second(seconds).unwrap());
        let times = [(1, time(0)), (2, None), (3, time(7)), (10, time(61))];
        let exact = Plot::new(&times, None).unwrap();
        assert_eq!(exact.counts.iter().sum::<f64>(), 3.0, "all but the event without a time");
        let plot = Plot::new(&times, Some(1)).unwrap();
        assert_eq!((plot.start, plot.step), (0, 5_000));
        assert_eq!(plot.counts.iter().sum::<f64>(), 9.0, "all but the event without a time");
        assert_eq!((plot.counts[0], plot.counts[1], plot.counts[12]), (1.0, 1.0, 7.0));
        assert!(Plot::new(&[(1, None)], None).is_none());
        let extremes = [(1, Some(Timestamp::MIN)), (2, Some(Timestamp::MAX))];
        assert!(Plot::new(&extremes, None).unwrap().counts.len() <= 60);
    }

    #[test]
    fn axes_have_round_numbers() {
        assert_eq!([0.0, 4.0, 5.0, 9.0, 43.0, 801.0].map(round_up), [4.0, 4.0, 8.0, 10.0, 80.0, 1000.0]);
    }
}
