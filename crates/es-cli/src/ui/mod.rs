//! `es ui`: a local, read-only web page.
//!
//! `connections` bounds the connections, `access` refuses requests, `source` reads the database, `page` has
//! the parts that pages share, and each page is a module of its own. Pages are rendered here and work without
//! JavaScript, except for the live tail.

mod access;
mod activity;
mod aggregate;
mod attributes;
mod connections;
mod events;
mod filter;
mod live;
mod log;
mod page;
mod source;
mod topics;
mod trackers;

use std::{io::Write, process::Stdio, sync::Arc, time::Duration};

use axum::{
    Router,
    http::header::CONTENT_TYPE,
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::{
    future::{Either, select},
    pin_mut,
};
use serde::Serialize;
use tempfile::NamedTempFile;
use tokio::{net::TcpListener, sync::watch, time::sleep};

use self::{
    access::Access,
    page::Problem,
    source::{App, Source},
};
use crate::{
    arguments::Ui,
    failure::{Exit, Failure},
    output::{Format, Output},
};

/// The time for open responses to end after the signal to terminate.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Served<'a> {
    url: &'a str,
}

pub(crate) async fn run(arguments: &Ui) -> Result<Exit, Failure> {
    let source = Source::open(&arguments.connection, arguments.upstream.as_deref()).await?;
    let failed = |error| Failure::new(format!("cannot listen on port {}: {error}", arguments.port));
    let listener = TcpListener::bind(("127.0.0.1", arguments.port)).await.map_err(failed)?;
    let access = Arc::new(Access::new(listener.local_addr().map_err(failed)?.port())?);
    let url = access.url();
    let (terminate, is_terminating) = watch::channel(false);
    let app = Arc::new(App::new(source, is_terminating));
    // The handlers of signals are installed before the URL is printed.
    let signal = signal()?;
    print(&url, arguments.formatting.format)?;
    let opened = if arguments.open { Some(open(&url)?) } else { None };

    let server = connections::serve(
        listener,
        router(Arc::clone(&app), Arc::clone(&access)),
        refusal(access),
        app.is_terminating.clone(),
    );
    pin_mut!(server, signal);
    if let Either::Left((_, server)) = select(signal, server).await {
        let _ = terminate.send(true);
        select(server, std::pin::pin!(sleep(GRACE))).await;
    }
    drop(opened);
    app.source.close().await?;
    Ok(Exit::Success)
}

fn router(app: Arc<App>, access: Arc<Access>) -> Router {
    let at = |name: &str| format!("{}{name}", access.directory());
    let entry = access.entry();
    Router::new()
        .route(&at("log"), get(log::page))
        .route(&at("aggregate"), get(aggregate::page))
        .route(&at("topics"), get(topics::page))
        .route(&at("trackers"), get(trackers::page))
        .route(&at("activity"), get(activity::page))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&app), connections::with_permit))
        .route(&at(""), get(async || entry))
        .route(&at("live"), get(live::stream))
        .route(
            &at("style.css"),
            get(async || asset("text/css; charset=utf-8", include_str!("assets/style.css"))),
        )
        .route(
            &at("live.js"),
            get(async || asset("text/javascript; charset=utf-8", include_str!("assets/live.js"))),
        )
        .route(&at("icon.svg"), get(async || asset("image/svg+xml", include_str!("assets/icon.svg"))))
        .fallback(async || Problem::not_found("there is no such page"))
        .layer(middleware::from_fn_with_state(access, access::verify))
        .with_state(app)
}

/// Refuses all requests, while there are too many connections.
fn refusal(access: Arc<Access>) -> Router {
    Router::new()
        .fallback(async || Problem::overloaded("connections"))
        .layer(middleware::from_fn_with_state(access, access::verify))
}

fn asset(media_type: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, media_type)], text).into_response()
}

fn print(url: &str, format: Format) -> Result<(), Failure> {
    let mut output = Output::new();
    match format {
        Format::Json => output.json(&Served { url })?,
        Format::Text => output.line(url)?,
    }
    output.flush()
}

/// Opens the URL in the browser, by a file that only this user can read: arguments of processes can be read
/// by other users of the machine. The file lives as long as the result.
fn open(url: &str) -> Result<NamedTempFile, Failure> {
    let failed = |error| Failure::new(format!("cannot open the browser: {error}"));
    let mut file = tempfile::Builder::new().prefix("es-ui-").suffix(".html").tempfile().map_err(failed)?;
    write!(file, "<!DOCTYPE html><meta http-equiv=\"refresh\" content=\"0; url={url}\">").map_err(failed)?;
    let mut command = if cfg!(target_os = "macos") {
        std::process::Command::new("open")
    } else if cfg!(windows) {
        std::process::Command::new("explorer")
    } else {
        std::process::Command::new("xdg-open")
    };
    command.arg(file.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(failed)?;
    Ok(file)
}

/// Waits for Ctrl-C or, on Unix, SIGTERM.
#[cfg(unix)]
fn signal() -> Result<impl Future<Output = ()>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error| Failure::new(format!("cannot wait for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    Ok(async move {
        select(std::pin::pin!(interrupt.recv()), std::pin::pin!(terminate.recv())).await;
    })
}

#[cfg(not(unix))]
fn signal() -> Result<impl Future<Output = ()>, Failure> {
    Ok(async { drop(tokio::signal::ctrl_c().await) })
}
