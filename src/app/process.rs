//! The server as a process: what it prints, and how signals end it.

use std::io::{self, Write};
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;

use super::{App, AppError, FirstAdmin};

/// How much longer than it may take a stop is waited for: for what can not be interrupted.
const STOP_MARGIN: Duration = Duration::from_secs(2);

/// The signals that tell the process to end: SIGTERM and SIGINT. From its making on they no longer end it by
/// themselves.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Watches for them.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn watch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl App {
    /// Runs until the process is told to end, then stops. A second signal ends it at once, and so does the end of the
    /// time that a stop may take: what is still at work then goes with the process.
    ///
    /// # Errors
    /// [`AppError::NotDrained`] and [`AppError::Stuck`] when the time was not enough, [`AppError::Interrupted`] after
    /// a second signal.
    pub async fn run_until_stopped(self, mut signals: Signals) -> Result<(), AppError> {
        let Self { stop, mut ended, shutdown, .. } = self;
        tokio::select! {
            () = signals.next() => {}
            ended = &mut ended => return ended.unwrap_or(Err(AppError::Died)),
        }
        let (grace_s, limit_s) = (shutdown.grace.as_secs(), shutdown.limit.as_secs());
        tracing::info!(grace_s, limit_s, "stopping; a second signal ends at once");
        stop.cancel();
        tokio::select! {
            ended = ended => ended.unwrap_or(Err(AppError::Died)),
            () = signals.next() => Err(AppError::Interrupted),
            () = tokio::time::sleep(shutdown.grace + shutdown.limit + STOP_MARGIN) => Err(AppError::Stuck),
        }
    }
}

/// Serves until the process is told to end; says on standard output where it listens and what a first visitor needs.
///
/// # Errors
/// [`AppError`].
pub fn serve(config: Config) -> Result<(), AppError> {
    let waiting = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    waiting.block_on(async {
        let data = config.store.to_string();
        let redis = config.redis.as_ref().map(ToString::to_string);
        let mail = mail_place(&config);
        // Before anybody is told where it serves: who knows may send a signal at once.
        let mut signals = Signals::watch()?;
        let built = tokio::select! {
            built = Box::pin(App::build(config)) => built,
            () = signals.next() => {
                tracing::info!("told to stop before it served");
                return Ok(());
            }
        };
        let app = built?;
        if let Err(error) = announce(&app, &data, redis.as_deref(), &mail) {
            // Nobody reads standard output: no reason to end a server that serves.
            tracing::warn!(%error, address = %app.address(), "what a first visitor needs could not be printed");
        }
        app.run_until_stopped(signals).await
    })
}

/// What becomes of mail, for people.
fn mail_place(config: &Config) -> String {
    match &config.mail.smtp {
        Some(smtp) => format!("sent by {}", smtp.server),
        None => "kept, not sent: GET /emails shows it to an administrator".to_owned(),
    }
}

fn announce(app: &App, data: &str, redis: Option<&str>, mail: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "Storekeeper serves at http://{}", app.address())?;
    writeln!(out, "  data     {data}")?;
    if let Some(redis) = redis {
        writeln!(out, "  carts    shown in Redis at {redis}")?;
    }
    writeln!(out, "  mail     {mail}")?;
    if let Some(FirstAdmin { email, password }) = app.first_admin() {
        match password {
            Some(password) => {
                writeln!(out, "  admin    {email}, password {} (shown this once)", password.expose_secret())?
            }
            None => writeln!(out, "  admin    {email}, with the password of ADMIN_PASSWORD")?,
        }
    }
    out.flush()
}
