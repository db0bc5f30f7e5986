//! The checks of each request, and the headers of each response.
//!
//! The page has no users and no passwords. Access is the knowledge of two random values:
//!
//! - the directory of all pages, which is part of each URL;
//! - the token of the printed URL, which the first request exchanges for a cookie.
//!
//! The cookie is `HttpOnly`, so that no script reads it; `SameSite=Strict`, so that no other site sends it;
//! and scoped to the random directory, because browsers do not separate the cookies of two ports: without
//! the directory, a server of another user on another port of this machine would receive it. Links contain
//! no token, so that histories, screenshots and bookmarks give no access.
//!
//! `Host` and `Origin` must be this server's: a name of another site that resolves to 127.0.0.1 (DNS
//! rebinding) is refused before anything else.

use std::{fmt::Write, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{
            ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, COOKIE, HOST, ORIGIN, REFERRER_POLICY,
            SET_COOKIE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
        },
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use maud::html;
use subtle::ConstantTimeEq;

use super::page::{Problem, document};
use crate::failure::Failure;

const COOKIE_NAME: &str = "es-ui";

/// Only resources of this server, no inline script or style, no frame, no strings as HTML.
const CONTENT_SECURITY: &str = "default-src 'none'; connect-src 'self'; img-src 'self'; script-src 'self'; \
     style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'";

const HEADERS: [(HeaderName, &str); 7] = [
    (CACHE_CONTROL, "no-store"),
    (CONTENT_SECURITY_POLICY, CONTENT_SECURITY),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
];

/// The random values of a run. It has no `Debug`, which would show them.
pub(super) struct Access {
    port: u16,
    directory: String,
    token: String,
}

impl Access {
    pub(super) fn new(port: u16) -> Result<Self, Failure> {
        Ok(Self { port, directory: format!("/{}/", random::<16>()?), token: random::<32>()? })
    }

    /// Returns the URL with the token.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}{}?token={}", self.port, self.directory, self.token)
    }

    /// Returns the directory of all pages, between slashes.
    pub(super) fn directory(&self) -> &str {
        &self.directory
    }

    /// Returns the response of the entry, which exchanges the token of the URL for the cookie.
    ///
    /// The page leads on by itself: after a redirect from another program's page, a browser would not send
    /// the cookie.
    pub(super) fn entry(&self) -> impl IntoResponse + Clone + use<> {
        let cookie =
            format!("{COOKIE_NAME}={}; Path={}; HttpOnly; SameSite=Strict", self.token, self.directory);
        let head = html! { meta http-equiv="refresh" content="0; url=log"; };
        let body = html! { main id="content" { p { a href="log" { "Continue to the log" } } } };
        ([(SET_COOKIE, cookie)], document("Welcome", &head, &body))
    }

    /// Returns the reason to refuse a request, before it is known who sent it.
    fn refusal(&self, request: &Request) -> Option<Problem> {
        let headers = request.headers();
        let hosts: Vec<_> = headers.get_all(HOST).iter().map(HeaderValue::as_bytes).collect();
        let is_own = |host: &[u8]| self.hosts().iter().any(|own| own.as_bytes() == host);
        let authority = request.uri().authority();
        let is_own_host = matches!(hosts[..], [host] if is_own(host))
            && authority.is_none_or(|authority| is_own(authority.as_str().as_bytes()));
        if !is_own_host {
            return Some(Problem::new(StatusCode::MISDIRECTED_REQUEST, "this server has another name"));
        }
        let is_own_origin = |origin: &HeaderValue| {
            origin.as_bytes().strip_prefix(b"http://").is_some_and(|host| hosts.contains(&host))
        };
        if !headers.get_all(ORIGIN).iter().all(is_own_origin) {
            return Some(Problem::new(StatusCode::FORBIDDEN, "requests of other sites are refused"));
        }
        if request.method() != Method::GET {
            return Some(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "the page can only be read"));
        }
        None
    }

    fn hosts(&self) -> Vec<String> {
        let mut hosts: Vec<_> = ["127.0.0.1", "localhost"].map(|name| format!("{name}:{}", self.port)).into();
        // A browser leaves the port of the scheme out.
        if self.port == 80 {
            hosts.extend(["127.0.0.1", "localhost"].map(str::to_owned));
        }
        hosts
    }

    /// Returns whether a request has the token: in its cookie, or in the URL of the entry.
    fn is_allowed(&self, request: &Request) -> bool {
        cookies(request.headers()).any(|cookie| self.is_token(cookie)) || self.enters(request)
    }

    fn enters(&self, request: &Request) -> bool {
        let token = request.uri().query().and_then(|query| query.strip_prefix("token="));
        request.uri().path() == self.directory && token.is_some_and(|token| self.is_token(token))
    }

    fn is_token(&self, token: &str) -> bool {
        self.token.as_bytes().ct_eq(token.as_bytes()).into()
    }
}

/// Returns random bytes in hexadecimal digits.
fn random<const BYTES: usize>() -> Result<String, Failure> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(|error| Failure::new(format!("no random numbers: {error}")))?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// Returns the values of this tool's cookies.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lists = headers.get_all(COOKIE).iter().filter_map(|list| list.to_str().ok());
    let pairs = lists.flat_map(|list| list.split("; ")).filter_map(|pair| pair.split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value)
}

/// Refuses requests that are not of the page, and adds the headers of security to each response. The
/// connection ends with a response that is no success.
pub(super) async fn verify(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let mut response = match access.refusal(&request) {
        Some(problem) => problem.into_response(),
        None if !access.is_allowed(&request) => Problem::new(
            StatusCode::FORBIDDEN,
            "open the URL that `es ui` printed: this browser has no token of the running tool",
        )
        .into_response(),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.extend(HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    headers.remove(ALLOW);
    if !response.status().is_success() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    }
    response
}
