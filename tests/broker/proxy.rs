//! A way to the broker that breaks on demand: it forwards what a server and the broker say to each other until the
//! broker confirms a message; then it does one bad thing, once. The broker has the message, the server never hears so.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// How `basic.ack` begins on a connection's first channel, which is the one that publishes: a method frame of 13 bytes,
/// class 60, method 80. The broker says it to nobody who consumes.
const CONFIRM: [u8; 11] = [1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80];

/// What happens instead of a confirm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection is cut.
    Cut,
    /// Nothing comes from the broker any more; the connection stays.
    Silence,
}

type Armed = Arc<Mutex<Option<(Fault, oneshot::Sender<()>)>>>;

/// The proxy; it ends when it is dropped.
pub(crate) struct Proxy {
    port: u16,
    armed: Armed,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to the broker at a port of the loopback.
    pub(crate) async fn to(broker: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let armed = Armed::default();
        let accepting = tokio::spawn(accept(listener, broker, Arc::clone(&armed)));
        Self { port, armed, accepting }
    }

    /// The address of a virtual host by way of the proxy.
    pub(crate) fn url(&self, host: &str, broker: u16) -> String {
        host.replace(&format!(":{broker}/"), &format!(":{}/", self.port))
    }

    /// The next confirm meets the fault. Tells when that has happened.
    pub(crate) fn arm(&self, fault: Fault) -> oneshot::Receiver<()> {
        let (happened, told) = oneshot::channel();
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = Some((fault, happened));
        told
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, broker: u16, armed: Armed) {
    // Connections end with the proxy: they are tasks of this set.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        if let Ok(server) = TcpStream::connect(("127.0.0.1", broker)).await {
            connections.spawn(forward(client, server, Arc::clone(&armed)));
        }
    }
}

async fn forward(mut client: TcpStream, mut server: TcpStream, armed: Armed) {
    let (mut said, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut silent = false;
    loop {
        tokio::select! {
            read = client.read(&mut said) => {
                let Ok(count @ 1..) = read else { return };
                if server.write_all(&said[..count]).await.is_err() && !silent {
                    return;
                }
            }
            // In silence the broker may say what it likes, or end: the client hears nothing of either.
            read = server.read(&mut answered), if !silent => {
                let Ok(count @ 1..) = read else { return };
                if let Some((fault, happened)) = take_if_confirmed(&armed, &answered[..count]) {
                    let _ = happened.send(());
                    if fault == Fault::Cut {
                        return;
                    }
                    silent = true;
                    continue;
                }
                if client.write_all(&answered[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The fault, when it is armed and the broker confirmed; it is armed no more then.
fn take_if_confirmed(
    armed: &Mutex<Option<(Fault, oneshot::Sender<()>)>>,
    answered: &[u8],
) -> Option<(Fault, oneshot::Sender<()>)> {
    let mut armed = armed.lock().unwrap_or_else(PoisonError::into_inner);
    armed.take_if(|_| answered.windows(CONFIRM.len()).any(|part| part == CONFIRM))
}
