//! A network between a recorder and its server that injects a fault at a message chosen by the test.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

use super::Server;

/// A fault of the network, at one message of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkFault {
    /// The connection ends instead.
    Cut,
    /// No more bytes pass, in either direction, and the connection stays open.
    Freeze,
    /// The server says instead that it breaks down, and does.
    Breakdown,
    /// It comes late.
    Delay(std::time::Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// Passes on what PostgreSQL and its clients say in the clear, message by message.
pub struct Link {
    pub port: u16,
    plan: Arc<Mutex<Option<Plan>>>,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    direction: Direction,
    harm: NetworkFault,
    /// The number of messages that still pass before the fault.
    passing: usize,
}

type SharedPlan = Arc<Mutex<Option<Plan>>>;

impl Link {
    pub async fn start(server: &Server) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let plan = SharedPlan::default();
        let (shared, server) = (Arc::clone(&plan), (server.host.clone(), server.port));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // The connection of a client is closed if its server is not there.
                let Ok(upstream) = TcpStream::connect(&server).await else { continue };
                client.set_nodelay(true).unwrap();
                upstream.set_nodelay(true).unwrap();
                tokio::spawn(connect(client, upstream, Arc::clone(&shared)));
            }
        });
        Self { port, plan }
    }

    /// Injects the fault once: at the message after the next `passing` ones, on any connection.
    pub fn arm(&self, direction: Direction, harm: NetworkFault, passing: usize) {
        *self.plan.lock().unwrap() = Some(Plan { direction, harm, passing });
    }

    /// Does none any more; whether it was done.
    pub fn disarm(&self) -> bool {
        self.plan.lock().unwrap().take().is_none()
    }
}

/// Why a connection passes nothing on any more.
enum End {
    Closed,
    Frozen,
}

async fn connect(mut client: TcpStream, mut server: TcpStream, plan: SharedPlan) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let requests = pass(&mut from_client, &mut to_server, Direction::ToServer, &plan);
    let answers = pass(&mut from_server, &mut to_client, Direction::ToClient, &plan);
    let end = tokio::select! { end = requests => end, end = answers => end };
    if matches!(end, End::Frozen) {
        // Both ends stay open, until the test ends.
        std::future::pending::<()>().await;
    }
}

async fn pass(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    direction: Direction,
    plan: &SharedPlan,
) -> End {
    // The message that opens a connection has no type.
    let mut has_type = direction == Direction::ToClient;
    loop {
        let Ok(message) = read(from, has_type).await else { return End::Closed };
        has_type = true;
        match due(plan, direction) {
            None => {}
            Some(NetworkFault::Cut) => return End::Closed,
            Some(NetworkFault::Freeze) => return End::Frozen,
            Some(NetworkFault::Breakdown) => {
                if direction == Direction::ToClient {
                    let _ = to.write_all(&breakdown()).await;
                }
                return End::Closed;
            }
            Some(NetworkFault::Delay(time)) => tokio::time::sleep(time).await,
        }
        if to.write_all(&message).await.is_err() {
            return End::Closed;
        }
    }
}

async fn read(from: &mut ReadHalf<'_>, has_type: bool) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; if has_type { 5 } else { 4 }];
    from.read_exact(&mut message).await?;
    let head = message.len();
    let length = u32::from_be_bytes(message[head - 4..].try_into().unwrap()) as usize;
    message.resize(head - 4 + length, 0);
    from.read_exact(&mut message[head..]).await?;
    Ok(message)
}

/// The message of a server that panics because its log cannot be written; the code is that of any full disk.
fn breakdown() -> Vec<u8> {
    let fields = b"SPANIC\0VPANIC\0C53100\0Mcould not write to file: No space left on device\0\0";
    let length = u32::try_from(4 + fields.len()).unwrap();
    [b"E", &length.to_be_bytes()[..], fields].concat()
}

/// Returns the fault for the message that passes now.
fn due(plan: &SharedPlan, direction: Direction) -> Option<NetworkFault> {
    let mut plan = plan.lock().unwrap();
    let armed = plan.as_mut().filter(|armed| armed.direction == direction)?;
    match armed.passing.checked_sub(1) {
        Some(passing) => armed.passing = passing,
        None => return plan.take().map(|done| done.harm),
    }
    None
}
