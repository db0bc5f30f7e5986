//! The topics with the numbers and the sizes of their events.

use std::sync::Arc;

use axum::{extract::State, response::Html};
use maud::html;

use super::{
    page::{Problem, encoded, grouped, page as document},
    source::App,
};
use crate::output::size;

/// The number of ids that are counted: a bound of the work of a request.
const COUNTED_IDS: i64 = 1_000_000;
/// The number of topics that are shown.
const SHOWN: usize = 1_000;

pub(super) async fn page(State(app): State<Arc<App>>) -> Result<Html<String>, Problem> {
    let source = &app.source;
    let head = source.head().await?;
    let is_whole = head <= COUNTED_IDS;
    let first = if is_whole { i64::MIN } else { head - COUNTED_IDS + 1 };
    let mut topics = source.catalog(async |catalog| catalog.topics(first).await).await?;
    topics.sort_by_key(|topic| std::cmp::Reverse(topic.count));
    let total: i64 = topics.iter().map(|topic| topic.count).sum();
    let left_out = topics.len().saturating_sub(SHOWN);
    topics.truncate(SHOWN);
    let content = html! {
        p {
            (grouped(total)) " events with " (topics.len() + left_out) " topics"
            @if !is_whole { ", among the newest " (grouped(COUNTED_IDS)) " ids" }
            "."
        }
        div.scroll role="region" aria-label="Topics" tabindex="0" {
            table {
                caption { "Topics, the most frequent first" }
                thead {
                    tr {
                        th scope="col" { "Topic" }
                        th.number scope="col" { "Events" }
                        th.share scope="col" { "Share" }
                        th.number scope="col" { "First id" }
                        th.number scope="col" { "Last id" }
                        th.number scope="col" { "Size of states" }
                    }
                }
                tbody {
                    @for topic in &topics {
                        tr {
                            th scope="row" {
                                a href={ "log?topic=" (encoded(&topic.topic)) } {
                                    @if topic.topic.is_empty() { "(empty)" } @else { (topic.topic) }
                                }
                            }
                            td.number { (grouped(topic.count)) }
                            td.share { (share(topic.count, total)) }
                            td.number { (grouped(topic.first_id)) }
                            td.number { (grouped(topic.last_id)) }
                            td.number { (size(topic.bytes)) }
                        }
                    }
                }
            }
        }
        @if left_out > 0 { p.note { (left_out) " more topics: `es topics` prints all of them." } }
    };
    Ok(document(source.location(), "topics", "Topics", &content))
}

/// Returns a share as a bar and in percent.
fn share(count: i64, total: i64) -> maud::Markup {
    let percent = 100.0 * count as f64 / total.max(1) as f64;
    html! {
        svg.share-bar viewBox="0 0 100 8" width="100" height="8" preserveAspectRatio="none" aria-hidden="true" {
            rect.track width="100" height="8" rx="2" {}
            rect.value width=(format!("{percent:.2}")) height="8" rx="2" {}
        }
        " " span { (format!("{percent:.1} %")) }
    }
}
