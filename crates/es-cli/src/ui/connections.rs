//! The connections of the server.
//!
//! Every program of this machine can connect, also without the token: the number of connections, the time to
//! send a request and the memory for it are bounded. A request that is refused ends its connection, so that
//! only a reader with the token can hold one.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

use super::{page::Problem, source::App};

/// The largest number of connections that are served.
const CONNECTIONS: usize = 64;
/// The largest number of further connections, whose requests are refused with the reason. Those beyond them
/// are closed.
const REFUSED: usize = 16;
/// The time to send the head of a request, or of the next one on a connection that is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest buffer of a connection, and with it the longest head of a request.
const BUFFER: usize = 64 << 10;
/// The time that a page waits for others to be sent.
const PAGE_WAIT: Duration = Duration::from_secs(2);
/// The pause after a connection could not be accepted, for example because the process has no file
/// descriptor left.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves connections by `pages`, or by `refusal` while there are too many, until the server is to end. Then
/// waits for the responses that have begun.
pub(super) async fn serve(
    listener: TcpListener,
    pages: Router,
    refusal: Router,
    mut is_terminating: watch::Receiver<bool>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(BUFFER);
    let served = [(pages, CONNECTIONS), (refusal, REFUSED)]
        .map(|(router, connections)| (router, Arc::new(Semaphore::new(connections))));
    let responses = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    sleep(PAUSE).await;
                    continue;
                }
            },
            _ = is_terminating.changed() => break,
        };
        let mut free = served.iter().filter_map(|(router, connections)| {
            Some((router, Arc::clone(connections).try_acquire_owned().ok()?))
        });
        let Some((router, permit)) = free.next() else { continue };
        let service = TowerToHyperService::new(router.clone());
        let connection = responses.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // It ends with an error if the client breaks it off, or sends no request.
            let _ = connection.await;
            drop(permit);
        });
    }
    drop(listener);
    responses.shutdown().await;
}

/// Makes a page when there is a permit, which is returned when the page is sent: slow readers hold few pages
/// in memory.
pub(super) async fn with_permit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Ok(Ok(permit)) = timeout(PAGE_WAIT, Arc::clone(&app.pages).acquire_owned()).await else {
        return Problem::overloaded("pages").into_response();
    };
    next.run(request).await.map(|body| {
        Body::from_stream(body.into_data_stream().map(move |part| {
            let _ = &permit;
            part
        }))
    })
}
