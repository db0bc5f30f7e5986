//! The history of an aggregate, with two of its states side by side.

use std::sync::Arc;

use axum::{
    extract::{Query, State},
    response::Html,
};
use es_core::{AggregateRecorder, EventRange, PersistenceError, StoredEvent, uuid::Uuid};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    attributes::{Difference, differences},
    events::state,
    filter::{id, originator_id},
    page::{Problem, beginning, grouped, page as document},
    source::{App, Row, Source},
};
use crate::{catalog::IdSelection, failure::Failure, record::Shown};

/// The number of events of a page.
const PAGE_SIZE: usize = 50;
/// The number of attributes that are compared.
const ATTRIBUTES: usize = 500;
/// The longest value of an attribute that is shown, in bytes.
const LONGEST_VALUE: usize = 2_000;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    id: String,
    left: String,
    right: String,
    /// The page before this notification id.
    before: String,
}

pub(super) async fn page(
    State(app): State<Arc<App>>,
    Query(parameters): Query<Parameters>,
) -> Result<Html<String>, Problem> {
    let source = &app.source;
    let aggregate = originator_id(&parameters.id)?;
    let before = id("before", &parameters.before)?;
    let selection = IdSelection {
        last: before.map_or(i64::MAX, |before| before.saturating_sub(1)),
        is_descending: true,
        limit: PAGE_SIZE + 1,
        ..IdSelection::of_aggregate(aggregate)
    };
    let mut ids = source.ids(&selection).await?;
    if ids.is_empty() && before.is_none() {
        return Err(Problem::not_found(format!("there are no events of aggregate {aggregate}")));
    }
    let is_full = ids.len() > PAGE_SIZE;
    ids.truncate(PAGE_SIZE);
    let older = ids.last().copied().filter(|_| is_full);
    let rows = source.rows(ids).await;
    // By default, the newest event and the one before it.
    let mut versions = rows.iter().filter_map(|row| row.version);
    let (newest, previous) = (versions.next(), versions.next());
    let right = id("Right version", &parameters.right)?.or(newest);
    let left = id("Left version", &parameters.left)?.or(previous).or(right);
    let comparison = match (left, right) {
        (Some(left), Some(right)) => compare(source, aggregate, left, right).await?,
        _ => html! {},
    };
    let content = html! {
        p.identity { code { (aggregate) } }
        (comparison)
        h2 { "History" }
        (history(aggregate, &rows, left, right, before))
        @if before.is_some() || older.is_some() {
            nav.paging aria-label="Paging" {
                ul {
                    @if before.is_some() { li { a href={ "aggregate?id=" (aggregate) } { "Newest events" } } }
                    @if let Some(older) = older {
                        li { a rel="next" href={ "aggregate?id=" (aggregate) "&before=" (older) } { "Older →" } }
                    }
                }
            }
        }
    };
    Ok(document(source.location(), "aggregate", "Aggregate", &content))
}

/// Returns the events, with the choice of two versions.
fn history(
    aggregate: Uuid,
    rows: &[Row],
    left: Option<i64>,
    right: Option<i64>,
    before: Option<i64>,
) -> Markup {
    let choice = |side: &str, version: Option<i64>, chosen: Option<i64>| {
        html! {
            td.choice {
                @if let Some(version) = version {
                    input type="radio" name=(side) value=(version) checked[chosen == Some(version)]
                        aria-label={ "Version " (version) " on the " (side) };
                }
            }
        }
    };
    html! {
        form.compare action="aggregate" aria-label="Versions to compare" {
            input type="hidden" name="id" value=(aggregate);
            @if let Some(before) = before { input type="hidden" name="before" value=(before); }
            p { button { "Compare the chosen versions" } }
            div.scroll role="region" aria-label="History" tabindex="0" {
                table {
                    caption { "Events of the aggregate, newest first" }
                    thead {
                        tr {
                            th.choice scope="col" { "Left" }
                            th.choice scope="col" { "Right" }
                            th.number scope="col" { "Version" }
                            th scope="col" { "Time (UTC)" }
                            th scope="col" { "Topic" }
                            th scope="col" { "State" }
                            th.number scope="col" { "Id" }
                        }
                    }
                    tbody {
                        @for row in rows {
                            tr {
                                (choice("left", row.version, left))
                                (choice("right", row.version, right))
                                th.number scope="row" { @if let Some(version) = row.version { (version) } }
                                td.time { (row.time) }
                                td.topic { (row.topic) }
                                td.state { (state(&row.state)) }
                                td.number { a href={ "log?from=" (row.id) "&order=oldest" } { (row.id) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Returns two states side by side.
async fn compare(source: &Source, aggregate: Uuid, left: i64, right: i64) -> Result<Markup, Problem> {
    let (first, second) = (event(source, aggregate, left).await?, event(source, aggregate, right).await?);
    let title = |event: &Result<StoredEvent, PersistenceError>| {
        event.as_ref().map_or_else(|_| String::new(), |event| event.topic.to_string())
    };
    let shown = |event: &Result<StoredEvent, PersistenceError>| match event {
        Ok(event) => source.shown(event),
        Err(error) => Shown::Unreadable(crate::failure::chain(error)),
    };
    let sides = (shown(&first), shown(&second));
    let comparison = match &sides {
        (Shown::Json(first), Shown::Json(second)) => rows_of(&differences(first, second)),
        sides => html! {
            tbody {
                tr {
                    th scope="row" { "State" }
                    @for side in [&sides.0, &sides.1] {
                        td {
                            @match side {
                                Shown::Unreadable(reason) => p.unreadable { strong { "Unreadable: " } (reason) },
                                _ => "readable",
                            }
                        }
                    }
                    td {}
                }
            }
        },
    };
    Ok(html! {
        h2 { "Version " (left) " and version " (right) }
        div.scroll role="region" aria-label="Comparison" tabindex="0" {
            table.comparison {
                caption { "Attributes of the two states" }
                thead {
                    tr {
                        th scope="col" { "Attribute" }
                        th scope="col" { "Version " (left) br; span.topic { (title(&first)) } }
                        th scope="col" { "Version " (right) br; span.topic { (title(&second)) } }
                        th scope="col" { "Difference" }
                    }
                }
                (comparison)
            }
        }
    })
}

fn rows_of(differences: &[Difference]) -> Markup {
    let left_out = differences.len().saturating_sub(ATTRIBUTES);
    html! {
        tbody {
            @for Difference { path, left, right } in differences.iter().take(ATTRIBUTES) {
                @let (class, note) = match (left, right) {
                    (Some(left), Some(right)) if left == right => ("same", "="),
                    (Some(_), Some(_)) => ("changed", "≠ changed"),
                    (Some(_), None) => ("left", "← left only"),
                    (None, _) => ("right", "→ right only"),
                };
                tr class=(class) {
                    th scope="row" { code { (path) } }
                    @for value in [left, right] {
                        td { @if let Some(value) = value { code { (beginning(value, LONGEST_VALUE)) } } @else { span.absent { "—" } } }
                    }
                    td.difference { (note) }
                }
            }
            @if left_out > 0 { tr { td colspan="4" { (grouped(left_out as i64)) " more attributes" } } }
        }
    }
}

/// Reads one version. An event that cannot be read is its error.
async fn event(
    source: &Source,
    aggregate: Uuid,
    version: i64,
) -> Result<Result<StoredEvent, PersistenceError>, Problem> {
    let range = EventRange::all().gt(version.saturating_sub(1)).up_to(version);
    match source.log.select_events(aggregate, range).await {
        Ok(mut events) => match events.pop() {
            Some(event) => Ok(Ok(event)),
            None => Err(Problem::not_found(format!("aggregate {aggregate} has no version {version}"))),
        },
        Err(error) if error.is_transient() => Err(Failure::from(error).into()),
        Err(error) => Ok(Err(error)),
    }
}
