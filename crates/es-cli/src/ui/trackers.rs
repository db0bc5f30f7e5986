//! The positions of consumers and their distances to the end of the log.

use std::sync::Arc;

use axum::{extract::State, response::Html};
use maud::html;

use super::{
    page::{Problem, grouped, page as document},
    source::App,
};
use crate::{lag::Lag, target::is_position_elsewhere};

/// The number of consumers that are shown.
const SHOWN: usize = 1_000;

pub(super) async fn page(State(app): State<Arc<App>>) -> Result<Html<String>, Problem> {
    let source = &app.source;
    // The positions are read first: a consumer that processes meanwhile is not ahead of the log.
    let mut trackers = source.catalog(async |catalog| catalog.trackers().await).await?;
    let head = source.upstream_head().await?;
    trackers.retain(|tracker| !is_position_elsewhere(&tracker.name));
    let left_out = trackers.len().saturating_sub(SHOWN);
    let lags: Vec<_> = trackers.iter().take(SHOWN).map(|tracker| Lag::new(tracker, head)).collect();
    let content = html! {
        p { "The log ends at id " strong { (grouped(head)) } "." }
        @if lags.is_empty() {
            p.empty { "No consumer has recorded a position." }
        } @else {
            div.scroll role="region" aria-label="Trackers" tabindex="0" {
                table {
                    caption { "Positions of consumers, and the notification ids to the end of the log" }
                    thead {
                        tr {
                            th scope="col" { "Consumer" }
                            th.number scope="col" { "Position" }
                            th.number scope="col" { "Lag" }
                            th scope="col" { "Status" }
                        }
                    }
                    tbody {
                        @for lag in &lags {
                            tr {
                                th scope="row" { (lag.tracker.name) }
                                td.number { (grouped(lag.tracker.position)) }
                                td.number { (grouped(lag.lag)) }
                                td { (status(lag)) }
                            }
                        }
                    }
                }
            }
        }
        @if left_out > 0 { p.note { (left_out) " more consumers: `es trackers` prints all of them." } }
    };
    Ok(document(source.location(), "trackers", "Trackers", &content))
}

fn status(lag: &Lag<'_>) -> maud::Markup {
    html! {
        @if lag.is_ahead() {
            span.badge.bad { "✕ ahead of the log, which has lost events" }
        } @else if lag.lag == 0 {
            span.badge.good { "✓ up to date" }
        } @else {
            span.badge { "… behind" }
        }
    }
}
