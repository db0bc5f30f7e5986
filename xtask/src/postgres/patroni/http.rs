//! Requests to Patroni and etcd.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result};

/// The usual limit for an answer. A node whose PostgreSQL is paused does not answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(2);

/// Returns the status and the body of the answer, each part of which may take `timeout`.
pub(super) fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    timeout: Duration,
) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(timeout))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status.context("this is no answer in HTTP")?, body.to_owned()))
}

/// Returns whether the answer to `GET` is `200 OK`.
pub(super) fn is_ok(address: SocketAddr, path: &str) -> bool {
    request(address, "GET", path, "", TIMEOUT).is_ok_and(|(status, _)| status == 200)
}
