//! The log: a page of events, the filter, and the live tail.

use std::sync::Arc;

use axum::{
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};

use super::{
    events::event_cells,
    filter::{Parameters, id},
    page::{Problem, capitalized, encoded, grouped, page as document},
    source::{App, Row, Source, State as EventState},
};
use crate::catalog::IdSelection;

/// The number of events of a page.
const PAGE_SIZE: usize = 50;
/// The number of ids that one request searches for a topic.
const SEARCHED_IDS: i64 = 1_000_000;
/// The number of ids whose topics are suggested.
const SUGGESTED_IDS: i64 = 10_000;

/// A page of the log.
struct Found {
    /// In the order of the page.
    rows: Vec<Row>,
    /// The id before which older events may be.
    older: Option<i64>,
    /// The id after which newer events may be.
    newer: Option<i64>,
    /// The ids that were searched, if not all of the filter were.
    searched: Option<(i64, i64)>,
}

pub(super) async fn page(
    State(app): State<Arc<App>>,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Problem> {
    let source = &app.source;
    // Read first: the live tail begins after it.
    let head = source.head().await?;
    let suggested = head.saturating_sub(SUGGESTED_IDS);
    let topics = source.catalog(async |catalog| catalog.topics(suggested).await).await?;
    let topics: Vec<_> = topics.into_iter().map(|topic| topic.topic).collect();
    let (results, status) = match find(source, &parameters, head).await {
        Ok(found) => (results(&parameters, &found, head), StatusCode::OK),
        Err(problem) => {
            (html! { p.alert role="alert" { (capitalized(&problem.message)) "." } }, problem.status)
        }
    };
    let content = html! { (form(&parameters, &topics)) (results) };
    Ok((status, document(source.location(), "log", "Log", &content)).into_response())
}

async fn find(source: &Source, parameters: &Parameters, head: i64) -> Result<Found, Problem> {
    let filter = parameters.selection(source, head).await?;
    let (before, after) = (id("before", &parameters.before)?, id("after", &parameters.after)?);
    let mut selection = IdSelection { limit: PAGE_SIZE + 1, ..filter.clone() };
    if let Some(before) = before {
        selection.last = selection.last.min(before.saturating_sub(1));
        selection.is_descending = true;
    } else if let Some(after) = after {
        selection.first = selection.first.max(after.saturating_add(1));
        selection.is_descending = false;
    }
    // The database finds a topic by a scan, which is bounded.
    let mut searched = None;
    if selection.topic.is_some() && selection.originator_id.is_none() {
        selection.first = selection.first.max(source.first_id().await?);
        let whole = (selection.first, selection.last);
        if selection.is_descending {
            selection.first = selection.first.max(selection.last.saturating_sub(SEARCHED_IDS - 1));
        } else {
            selection.last = selection.last.min(selection.first.saturating_add(SEARCHED_IDS - 1));
        }
        let bounds = (selection.first, selection.last);
        searched = (bounds != whole).then_some(bounds);
    }
    let mut ids = source.ids(&selection).await?;
    let is_full = ids.len() > PAGE_SIZE;
    ids.truncate(PAGE_SIZE);
    ids.sort_unstable();
    let (is_descending, is_first) = (selection.is_descending, before.is_none() && after.is_none());
    // A page ends in the direction of the search: by its size, by the bound of the search, or with the log.
    let searched = searched.filter(|_| !is_full);
    let (lowest, highest) = (ids.first().copied(), ids.last().copied());
    let (older, newer) = if is_descending {
        let older = if is_full { lowest } else { searched.map(|(first, _)| first) };
        (older, highest.or(before.map(|before| before - 1)).filter(|_| !is_first))
    } else {
        let newer = if is_full { highest } else { searched.map(|(_, last)| last) };
        (lowest.or(after.map(|after| after + 1)).filter(|_| !is_first), newer)
    };
    if !parameters.is_ascending() {
        ids.reverse();
    }
    Ok(Found { rows: source.rows(ids).await, older, newer, searched })
}

fn form(parameters: &Parameters, topics: &[String]) -> Markup {
    let field = |name: &str, label: &str, kind: &str, value: &str| {
        html! {
            p.field {
                label for=(name) { (label) }
                input id=(name) name=(name) type=(kind) value=(value) autocomplete="off"
                    spellcheck="false" step=[(kind == "datetime-local").then_some("1")]
                    list=[(name == "topic").then_some("topics")];
            }
        }
    };
    html! {
        form.filter action="log" aria-label="Filter" {
            (field("topic", "Topic", "text", &parameters.topic))
            datalist id="topics" { @for topic in topics { option value=(topic); } }
            (field("aggregate", "Aggregate id", "text", &parameters.aggregate))
            (field("from", "From id", "number", &parameters.from))
            (field("to", "To id", "number", &parameters.to))
            (field("since", "Since (UTC)", "datetime-local", &parameters.since))
            (field("until", "Before (UTC)", "datetime-local", &parameters.until))
            p.field {
                label for="order" { "Order" }
                select id="order" name="order" {
                    option value="" { "Newest first" }
                    option value="oldest" selected[parameters.is_ascending()] { "Oldest first" }
                }
            }
            p.buttons { button { "Show" } " " a.button href="log" { "Reset" } }
        }
    }
}

fn results(parameters: &Parameters, found: &Found, head: i64) -> Markup {
    let Found { rows, older, newer, searched } = found;
    let is_end = newer.is_none() && parameters.before.is_empty() && !parameters.is_ascending();
    let is_live = is_end && parameters.to.is_empty() && parameters.until.is_empty();
    html! {
        @if let Some((first, last)) = searched {
            p.note {
                "Searched the ids " (grouped(*first)) " to " (grouped(*last)) ", "
                (grouped(SEARCHED_IDS)) " at a time."
            }
        }
        @if is_live { (live(parameters, head)) }
        (paging(parameters, *older, *newer))
        div.scroll role="region" aria-label="Events" tabindex="0" {
            table.events id="events" {
                caption { (caption(rows, parameters.is_ascending())) }
                thead {
                    tr {
                        th.number scope="col" { "Id" }
                        th scope="col" { "Time (UTC)" }
                        th scope="col" { "Topic" }
                        th scope="col" { "Aggregate, version" }
                        th scope="col" { "State" }
                    }
                }
                tbody {
                    @for row in rows { tr { (event_cells(row)) } }
                }
            }
        }
        @if rows.is_empty() { p.empty id="empty" { "No events pass the filter." } }
        (paging(parameters, *older, *newer))
    }
}

fn caption(rows: &[Row], is_ascending: bool) -> String {
    let order = if is_ascending { "oldest first" } else { "newest first" };
    match (rows.first(), rows.last()) {
        (Some(first), Some(last)) => {
            let (from, to) = (first.id.min(last.id), first.id.max(last.id));
            let events = if rows.len() == 1 { "event" } else { "events" };
            format!("{} {events}, ids {} to {}, {order}", rows.len(), grouped(from), grouped(to))
        }
        _ => "Events".to_owned(),
    }
}

fn paging(parameters: &Parameters, older: Option<i64>, newer: Option<i64>) -> Markup {
    let newer = newer.map(
        |id| html! { a rel="prev" href={ "log?" (parameters.query(Some(("after", id)))) } { "← Newer" } },
    );
    let older = older.map(
        |id| html! { a rel="next" href={ "log?" (parameters.query(Some(("before", id)))) } { "Older →" } },
    );
    let links = if parameters.is_ascending() { [older, newer] } else { [newer, older] };
    html! {
        @if links.iter().any(Option::is_some) {
            nav.paging aria-label="Paging" {
                ul {
                    @if !parameters.before.is_empty() || !parameters.after.is_empty() {
                        li { a href={ "log?" (parameters.query(None)) } { "First page" } }
                    }
                    @for link in links.into_iter().flatten() { li { (link) } }
                }
            }
        }
    }
}

/// Returns the controls of the live tail, which the script shows, and the rows that it fills.
fn live(parameters: &Parameters, head: i64) -> Markup {
    let Parameters { topic, aggregate, .. } = parameters;
    let stream = format!("live?topic={}&aggregate={}&after=", encoded(topic), encoded(aggregate));
    let blank = |state| Row {
        id: 0,
        time: String::new(),
        topic: String::new(),
        aggregate: String::new(),
        version: Some(0),
        state,
    };
    let readable = blank(EventState::Json { preview: String::new(), lines: String::new() });
    let unreadable = Row { version: None, ..blank(EventState::Unreadable { reason: String::new() }) };
    html! {
        section.live id="live" aria-label="Live tail" data-stream=(stream) data-after=(head) hidden {
            button type="button" aria-pressed="false" { "Follow live" }
            " " p role="status" { "New events are not shown." }
            template class="readable" { tr { (event_cells(&readable)) } }
            template class="unreadable" { tr { (event_cells(&unreadable)) } }
        }
        noscript { p.note { "Without JavaScript, load the page again to see new events." } }
        script src="live.js" defer {}
    }
}
