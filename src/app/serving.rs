//! The HTTP side while it serves, and how it ends: no answer breaks off, and nobody who came in goes without one.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::{HttpServer, web};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::Config;
use crate::http::{self, AppState, Connections};

use super::AppError;
use super::door::Door;

/// How long those who stand on the doorstep have to come in.
const DOORSTEP: Duration = Duration::from_millis(100);
/// How long is waited at most for the first request over a connection.
const FIRST_REQUEST_MAX: Duration = Duration::from_secs(1);
/// How often it is looked whether those requests are there.
const LOOK_PERIOD: Duration = Duration::from_millis(5);

/// A listening HTTP side.
pub(super) struct Serving {
    door: Door,
    connections: Connections,
    handle: ServerHandle,
    server: JoinHandle<io::Result<()>>,
}

impl Serving {
    /// Listens and serves. To be called in the actix system.
    ///
    /// # Errors
    /// [`AppError::Listen`].
    pub(super) fn begin(config: &Config, state: AppState, connections: Connections) -> Result<Self, AppError> {
        let address = config.http.bind;
        let failed = |source| AppError::Listen { address, source };
        let door = Door::open(address).map_err(failed)?;
        let server = server(config, state, connections.clone(), &door).map_err(failed)?;
        Ok(Self { door, connections, handle: server.handle(), server: actix_rt::spawn(server) })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.door.address()
    }

    /// Lets nobody in any more, answers what was asked, and ends, at `deadline` at the latest. Gives how many
    /// connections were cut off then; 0 is an end in order.
    ///
    /// Idle connections are closed. A request that is sent over one at that very moment is not read, and its
    /// connection ends without a byte of an answer.
    pub(super) async fn end(self, deadline: Instant) -> usize {
        let Self { door, connections, handle, server } = self;
        if let Err(error) = door.keep_newcomers_out() {
            tracing::debug!(%error, "connections that begin while the door is closed may be reset");
        }
        let last = deadline.min(Instant::now() + FIRST_REQUEST_MAX);
        sleep(DOORSTEP).await;
        while connections.unasked() > 0 && Instant::now() < last {
            sleep(LOOK_PERIOD).await;
        }
        drop(door);
        // The deadline rules, not the server's own limit: that one is looked at once a second.
        if timeout_at(deadline, handle.stop(true)).await.is_ok() {
            drop(server.await);
            return 0;
        }
        let cut_off = connections.open();
        server.abort();
        cut_off
    }
}

fn server(config: &Config, state: AppState, connections: Connections, door: &Door) -> io::Result<Server> {
    let state = web::Data::new(state);
    let server = HttpServer::new(move || actix_web::App::new().configure(http::configure(state.clone())))
        .workers(config.http.workers)
        .on_connect(move |_, extensions| connections.enter(extensions))
        .shutdown_timeout(config.shutdown.limit.as_secs() + 1)
        .disable_signals()
        .listen(door.listener()?)?;
    Ok(server.run())
}
