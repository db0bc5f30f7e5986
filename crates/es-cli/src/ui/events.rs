//! Events in tables.

use maud::{Markup, html};

use super::source::{Row, State};

/// Returns the cells of an event: id, time, topic, aggregate with version, and state.
pub(super) fn event_cells(row: &Row) -> Markup {
    html! {
        th.number.id scope="row" { (row.id) }
        td.time { (row.time) }
        td.topic { (row.topic) }
        td.aggregate {
            @if let Some(version) = row.version {
                a href={ "aggregate?id=" (row.aggregate) } { (row.aggregate) }
                " " span.version { "v" (version) }
            }
        }
        td.state { (state(&row.state)) }
    }
}

/// Returns a state: its beginning, and the whole of it on demand.
pub(super) fn state(state: &State) -> Markup {
    match state {
        State::Json { preview, lines } => html! {
            details {
                summary { code { (preview) } }
                pre tabindex="0" aria-label="State" { (lines) }
            }
        },
        State::Unreadable { reason } => {
            html! { p.unreadable { strong { "Unreadable: " } span.reason { (reason) } } }
        }
    }
}
