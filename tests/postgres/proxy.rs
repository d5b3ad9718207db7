//! A way to the server that breaks on demand: it forwards what a client and the server say to each other until a
//! message of the client's holds a certain text, and then does one bad thing, once.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// What happens when the client says the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection is cut, and the server never hears the word.
    CutBefore,
    /// The server hears the word and answers; the connection is cut before the answer gets through.
    CutBehind,
    /// The server never hears the word, and nothing comes through any more; the connection stays.
    Freeze,
}

struct Armed {
    word: &'static str,
    fault: Fault,
    happened: oneshot::Sender<()>,
}

/// The proxy; it ends when it is dropped.
pub(crate) struct Proxy {
    port: u16,
    armed: Arc<Mutex<Option<Armed>>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to the server that listens at a socket.
    pub(crate) async fn to(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let armed = Arc::new(Mutex::new(None));
        let accepting = tokio::spawn(accept(listener, socket, Arc::clone(&armed)));
        Self { port, armed, accepting }
    }

    /// The address of a database through the proxy.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://shop@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// The next connection that says `word` meets the fault. Tells when that has happened.
    pub(crate) fn arm(&self, word: &'static str, fault: Fault) -> oneshot::Receiver<()> {
        let (happened, told) = oneshot::channel();
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Armed { word, fault, happened });
        told
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, socket: PathBuf, armed: Arc<Mutex<Option<Armed>>>) {
    // Connections end with the proxy: they are tasks of this set.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        if let Ok(server) = UnixStream::connect(&socket).await {
            connections.spawn(forward(client, server, Arc::clone(&armed)));
        }
    }
}

async fn forward(mut client: TcpStream, mut server: UnixStream, armed: Arc<Mutex<Option<Armed>>>) {
    let (mut said, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut said) => {
                let Ok(count @ 1..) = read else { return };
                if let Some(Armed { fault, happened, .. }) = take_if_said(&armed, &said[..count]) {
                    if fault == Fault::CutBehind {
                        drop(server.write_all(&said[..count]).await);
                        // Once the server says anything, it has done it.
                        drop(server.read(&mut answered).await);
                    }
                    let _ = happened.send(());
                    if fault == Fault::Freeze {
                        std::future::pending::<()>().await;
                    }
                    return;
                }
                if server.write_all(&said[..count]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(count @ 1..) = read else { return };
                if client.write_all(&answered[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The fault, when it is armed for a word that was said; it is armed no more then.
fn take_if_said(armed: &Mutex<Option<Armed>>, said: &[u8]) -> Option<Armed> {
    let mut armed = armed.lock().unwrap_or_else(PoisonError::into_inner);
    armed.take_if(|armed| said.windows(armed.word.len()).any(|part| part == armed.word.as_bytes()))
}
