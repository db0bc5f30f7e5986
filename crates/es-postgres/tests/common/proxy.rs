//! A proxy in front of the server that cuts connections at a chosen point.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use super::Server;

/// The action of the proxy on a connection that sends the marked bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing.
    Never,
    /// Cuts it before the server gets them.
    Request,
    /// Forwards them to the server, and cuts it instead of forwarding the response.
    Answer,
    /// The same, and takes no more connections.
    AnswerForGood,
}

/// Takes no more connections.
const CLOSED: u8 = u8::MAX;

const CUTS: [Cut; 4] = [Cut::Never, Cut::Request, Cut::Answer, Cut::AnswerForGood];

pub struct Proxy {
    pub port: u16,
    cut: Arc<AtomicU8>,
    /// An answer was swallowed: the server has done its work.
    pub swallowed: Arc<Notify>,
}

impl Proxy {
    /// Cuts once, when the bytes `mark` pass.
    pub async fn start(server: Server, mark: &'static [u8]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = Arc::new(AtomicU8::new(0));
        let swallowed = Arc::new(Notify::new());
        let (armed, notify) = (Arc::clone(&cut), Arc::clone(&swallowed));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if armed.load(Ordering::SeqCst) == CLOSED {
                    continue;
                }
                let upstream = TcpStream::connect((server.host.as_str(), server.port)).await.unwrap();
                tokio::spawn(pass(client, upstream, mark, Arc::clone(&armed), Arc::clone(&notify)));
            }
        });
        Self { port, cut, swallowed }
    }

    pub fn arm(&self, cut: Cut) {
        let index = CUTS.iter().position(|known| *known == cut).unwrap();
        self.cut.store(u8::try_from(index).unwrap(), Ordering::SeqCst);
    }
}

async fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    mark: &'static [u8],
    armed: Arc<AtomicU8>,
    swallowed: Arc<Notify>,
) {
    let (mut request, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let Ok(read @ 1..) = read else { return };
                let marked = request[..read].windows(mark.len()).any(|bytes| bytes == mark);
                let cut = CUTS[usize::from(if marked { armed.load(Ordering::SeqCst) } else { 0 })];
                if cut == Cut::Request {
                    armed.store(0, Ordering::SeqCst);
                    return;
                }
                server.write_all(&request[..read]).await.unwrap();
                if cut != Cut::Never {
                    armed.store(if cut == Cut::Answer { 0 } else { CLOSED }, Ordering::SeqCst);
                    // The answer has come, so the server has committed; it goes nowhere.
                    let _ = server.read(&mut answer).await;
                    swallowed.notify_one();
                    return;
                }
            }
            read = server.read(&mut answer) => {
                let Ok(read @ 1..) = read else { return };
                client.write_all(&answer[..read]).await.unwrap();
            }
        }
    }
}
