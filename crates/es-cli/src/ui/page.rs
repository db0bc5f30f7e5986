//! The parts that pages share: the document, the navigation, problems, and forms of values.

use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::failure::{Exit, Failure};

/// The pages of the navigation: the path, and the name.
const PAGES: [(&str, &str); 4] =
    [("log", "Log"), ("activity", "Activity"), ("topics", "Topics"), ("trackers", "Trackers")];

/// A response that is an error.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// There are too many of something that a request needs.
    pub(super) fn overloaded(what: &str) -> Self {
        let message = format!("too many {what} are open: close other pages");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let status = match failure.exit {
            Exit::NotFound => StatusCode::NOT_FOUND,
            Exit::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, failure.message())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let reason = self.status.canonical_reason().unwrap_or("Error");
        let body = html! {
            main id="content" {
                h1 { (reason) }
                p { (capitalized(&self.message)) "." }
                @if self.status != StatusCode::FORBIDDEN { p { a href="log" { "Go to the log" } } }
            }
        };
        (self.status, document(reason, &html! {}, &body)).into_response()
    }
}

/// Returns a page with the navigation. `path` is the page of the navigation that it belongs to.
pub(super) fn page(location: &str, path: &str, title: &str, content: &Markup) -> Html<String> {
    let body = html! {
        header.top {
            p.brand { span.mark aria-hidden="true" { "es" } " " span.location { (location) } }
            nav aria-label="Pages" {
                ul {
                    @for (target, name) in PAGES {
                        li { a href=(target) aria-current=[(target == path).then_some("page")] { (name) } }
                    }
                }
            }
        }
        main id="content" tabindex="-1" {
            h1 { (title) }
            (content)
        }
    };
    document(title, &html! {}, &body)
}

/// Returns a whole document.
pub(super) fn document(title: &str, head: &Markup, body: &Markup) -> Html<String> {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · es" }
                link rel="icon" href="icon.svg";
                link rel="stylesheet" href="style.css";
                (head)
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                (body)
            }
        }
    };
    Html(document.into_string())
}

/// Returns a text, or its beginning with the number of its bytes if it has more than `bytes`.
pub(super) fn beginning(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    format!("{}… ({} bytes)", &text[..text.floor_char_boundary(bytes)], text.len())
}

/// Returns a text with a capital letter at its beginning.
pub(super) fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// Returns a number with its digits in groups of three.
pub(super) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = if number < 0 { "−".to_owned() } else { String::new() };
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns the value of a parameter in a URL.
pub(super) fn encoded(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}
