//! The mail server: connections to it, and the handing over of one mail in two steps.
//!
//! Whether a mail may be sent again depends on how far it got. Until the final dot is written the server does not have
//! it; once it is written and no answer comes, nobody knows. So a mail is *offered* first (connection, sender,
//! recipient), and then *handed over* (`DATA`, text, final dot, answer), and its owner can note the difference in
//! between. lettre's own pooled transport does all of it in one call that does not tell where it
//! ended, so connections (lettre's) are kept here.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io;
use std::iter;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Tls, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Noop, Quit, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use lettre::transport::smtp::{SMTP_PORT, SUBMISSION_PORT, SUBMISSIONS_PORT};
use percent_encoding::percent_decode_str;
use tokio::time::timeout;
use url::{Host, Url};

use super::letter::Letter;

/// How long a connection without work is kept: servers close theirs after a minute or more.
const IDLE_LIFE: Duration = Duration::from_secs(20);
/// How long saying goodbye may take.
const GOODBYE_LIMIT: Duration = Duration::from_millis(500);
/// Characters of an error's text at most.
const ERROR_MAX: usize = 500;

/// Where the mail server is and how it is spoken to. It has no `Debug`, since it may hold a password.
#[derive(Clone)]
pub struct SmtpServer {
    host: String,
    port: u16,
    tls: Tls,
    name: ClientId,
    credentials: Option<Credentials>,
}

impl SmtpServer {
    /// Reads an address as lettre's `from_url` does: `smtps://user:password@host:port` is TLS from the start, `smtp://`
    /// none, `smtp://…?tls=required` STARTTLS or nothing, `?tls=opportunistic` STARTTLS where the server has it. The
    /// path is the name to greet with; user and password are percent-encoded. `None` when it is not such an address.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let host = match url.host()? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let parameters = || TlsParameters::new(host.clone()).ok();
        let tls = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value.into_owned());
        let (tls, port) = match (url.scheme(), tls.as_deref()) {
            ("smtp", None) => (Tls::None, SMTP_PORT),
            ("smtp", Some("required")) => (Tls::Required(parameters()?), SUBMISSION_PORT),
            ("smtp", Some("opportunistic")) => (Tls::Opportunistic(parameters()?), SUBMISSION_PORT),
            ("smtps", _) => (Tls::Wrapper(parameters()?), SUBMISSIONS_PORT),
            _ => return None,
        };
        let name = match url.path().trim_matches('/') {
            "" => ClientId::default(),
            name => ClientId::Domain(name.to_owned()),
        };
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
        let credentials = match url.password() {
            Some(password) => Some(Credentials::new(decoded(url.username())?, decoded(password)?)),
            None => None,
        };
        Some(Self { port: url.port().unwrap_or(port), host, tls, name, credentials })
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, SmtpError> {
        let wrapper = if let Tls::Wrapper(parameters) = &self.tls { Some(parameters.clone()) } else { None };
        let server = (self.host.as_str(), self.port);
        let mut connection = AsyncSmtpConnection::connect_tokio1(server, None, &self.name, wrapper, None).await?;
        match &self.tls {
            Tls::Required(parameters) => connection.starttls(parameters.clone(), &self.name).await?,
            Tls::Opportunistic(parameters) if connection.can_starttls() => {
                connection.starttls(parameters.clone(), &self.name).await?;
            }
            Tls::Opportunistic(_) | Tls::None | Tls::Wrapper(_) => {}
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(connection)
    }
}

impl fmt::Display for SmtpServer {
    /// Where it is, for people; nothing of it is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// How a mail server is used. It has no `Debug`, as its address has none.
#[derive(Clone)]
pub struct SmtpOptions {
    /// Where it is.
    pub server: SmtpServer,
    /// Mails on their way at a time, each on a connection of its own; 1 or more.
    pub sends_max: usize,
    /// How long it may take from connecting until the server has accepted the recipient.
    pub offer_limit: Duration,
    /// How long it may take from then on to the server's answer to the text.
    pub answer_limit: Duration,
    /// How often a server that did not answer is asked whether it does again.
    pub probe_period: Duration,
}

impl SmtpOptions {
    /// What is right for a server by default.
    #[must_use]
    pub fn of(server: SmtpServer) -> Self {
        Self {
            server,
            sends_max: 8,
            offer_limit: Duration::from_secs(30),
            answer_limit: Duration::from_secs(120),
            probe_period: Duration::from_secs(5),
        }
    }
}

/// Why a mail is not with the server, or not known to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The server does not have it; another try may succeed.
    #[error("{0}")]
    NotNow(String),
    /// The server will not have it, whenever it is tried.
    #[error("{0}")]
    Refused(String),
    /// The server got all of it and did not say whether it took it.
    #[error("the mail server did not say whether it took the mail: {0}")]
    Unanswered(String),
}

/// How the mail server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Standing {
    /// Nobody has spoken to it yet.
    Unknown,
    /// It answered the last time.
    Answers,
    /// It did not.
    Silent,
}

/// Carries mails to one server. Shared by everybody who sends.
pub struct Courier {
    options: SmtpOptions,
    idle: Mutex<VecDeque<(AsyncSmtpConnection, Instant)>>,
    standing: AtomicU8,
    closed: AtomicBool,
}

impl Courier {
    /// Nobody is spoken to before there is a mail, or a [`probe`](Self::probe).
    #[must_use]
    pub fn new(options: SmtpOptions) -> Self {
        let standing = AtomicU8::new(Standing::Unknown as u8);
        Self { options, idle: Mutex::default(), standing, closed: AtomicBool::new(false) }
    }

    /// How it is used.
    #[must_use]
    pub fn options(&self) -> &SmtpOptions {
        &self.options
    }

    /// Whether the server answered when it was last spoken to.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.standing.load(Ordering::Relaxed) == Standing::Answers as u8
    }

    /// Asks the server whether it is there.
    pub async fn probe(&self) {
        let probed = timeout(self.options.offer_limit, async {
            // The oldest connection that is kept: so a kept one is known to be good, or gone.
            if let Some(mut connection) = self.take_idle()
                && connection.command(Noop).await.is_ok()
            {
                return Ok(connection);
            }
            self.options.server.connect().await
        });
        match probed.await {
            Ok(Ok(connection)) => {
                self.stands(Standing::Answers);
                self.park(connection);
            }
            Ok(Err(error)) => self.silent(&told(&error)),
            Err(_) => self.silent("no answer in time"),
        }
    }

    /// Offers a mail: the server accepts sender and recipient. Dropped, the offer is as never made.
    ///
    /// # Errors
    /// [`DeliveryError::NotNow`] or [`DeliveryError::Refused`]; nothing of the text was sent.
    pub async fn offer<'a>(&'a self, letter: &'a Letter) -> Result<Offer<'a>, DeliveryError> {
        let limit = self.options.offer_limit;
        // Boxed: it is one of many futures of its caller, and has room for all that TLS needs.
        let offered = timeout(limit, Box::pin(self.make_offer(letter))).await;
        offered.unwrap_or_else(|_| {
            self.silent("no answer in time");
            Err(DeliveryError::NotNow(format!("the mail server does not answer within {limit:?}")))
        })
    }

    async fn make_offer<'a>(&'a self, letter: &'a Letter) -> Result<Offer<'a>, DeliveryError> {
        if let Some(mut connection) = self.take_idle() {
            // What was kept may have been closed by the server meanwhile, which says nothing about the mail.
            let good = connection.command(Noop).await.is_ok();
            if good && greet(&mut connection, letter).await.is_ok() {
                return self.name_recipient(connection, letter).await;
            }
        }
        let mut connection = self.options.server.connect().await.map_err(|error| self.lost("connecting", &error))?;
        self.stands(Standing::Answers);
        if let Err(error) = greet(&mut connection, letter).await {
            return Err(self.declined(connection, "MAIL", &error).await);
        }
        self.name_recipient(connection, letter).await
    }

    async fn name_recipient<'a>(
        &'a self,
        mut connection: AsyncSmtpConnection,
        letter: &'a Letter,
    ) -> Result<Offer<'a>, DeliveryError> {
        for recipient in letter.envelope.to() {
            if let Err(error) = connection.command(Rcpt::new(recipient.clone(), Vec::new())).await {
                let for_good = error.is_permanent();
                let declined = self.declined(connection, "RCPT", &error).await;
                return Err(if for_good { DeliveryError::Refused(declined.to_string()) } else { declined });
            }
        }
        Ok(Offer { courier: self, connection, letter })
    }

    /// A command before the text was answered with no, or not at all. Such a no speaks of the moment, of the sender or
    /// of the server's settings; only a recipient's can be for good.
    async fn declined(&self, mut connection: AsyncSmtpConnection, command: &str, error: &SmtpError) -> DeliveryError {
        if error.status().is_none() {
            return self.lost(command, error);
        }
        if connection.command(Rset).await.is_ok() {
            self.park(connection);
        }
        DeliveryError::NotNow(format!("{command}: {}", told(error)))
    }

    /// The connection was lost, or there was none.
    fn lost(&self, at: &str, error: &SmtpError) -> DeliveryError {
        let text = format!("{at}: {}", told(error));
        self.silent(&text);
        DeliveryError::NotNow(text)
    }

    /// Says goodbye on all connections that are kept; no more are kept from now on.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        while let Some(mut connection) = self.take_idle() {
            drop(timeout(GOODBYE_LIMIT, connection.command(Quit)).await);
        }
    }

    fn stands(&self, standing: Standing) {
        let before = self.standing.swap(standing as u8, Ordering::Relaxed);
        if standing == Standing::Answers && before == Standing::Silent as u8 {
            tracing::info!(server = %self.options.server, "the mail server answers again");
        }
    }

    fn silent(&self, why: &str) {
        if self.standing.swap(Standing::Silent as u8, Ordering::Relaxed) != Standing::Silent as u8 {
            tracing::warn!(server = %self.options.server, why, "the mail server does not answer; mails wait");
        }
    }

    /// A connection that was kept, the oldest one; those that were kept for too long are dropped.
    fn take_idle(&self) -> Option<AsyncSmtpConnection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((connection, since)) = idle.pop_front() {
            if since.elapsed() < IDLE_LIFE {
                return Some(connection);
            }
        }
        None
    }

    fn park(&self, connection: AsyncSmtpConnection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.options.sends_max && !self.closed.load(Ordering::Acquire) {
            idle.push_back((connection, Instant::now()));
        }
    }
}

/// A mail whose recipient the server has accepted.
pub struct Offer<'a> {
    courier: &'a Courier,
    connection: AsyncSmtpConnection,
    letter: &'a Letter,
}

impl Offer<'_> {
    /// Sends the text and waits for the answer. When this returns `Ok`, the server has the mail.
    ///
    /// # Errors
    /// [`DeliveryError`]; [`DeliveryError::Unanswered`] only when all of the text was written.
    pub async fn hand_over(self) -> Result<(), DeliveryError> {
        let Self { courier, mut connection, letter } = self;
        let limit = courier.options.answer_limit;
        let written = AtomicBool::new(false);
        let answer = timeout(limit, give(&mut connection, letter, &written)).await;
        let error = match answer {
            Ok(Ok(())) => {
                courier.park(connection);
                return Ok(());
            }
            Ok(Err((at, error))) if error.status().is_some() => {
                let for_good = written.into_inner() && error.is_permanent();
                let declined = courier.declined(connection, at, &error).await;
                return Err(if for_good { DeliveryError::Refused(declined.to_string()) } else { declined });
            }
            // The write of the final dot failed: the server can not have it.
            Ok(Err((at, error))) if is_broken_pipe(&error) => return Err(courier.lost(at, &error)),
            Ok(Err((at, error))) => format!("{at}: {}", told(&error)),
            Err(_) => format!("no answer within {limit:?}"),
        };
        courier.silent(&error);
        Err(if written.into_inner() { DeliveryError::Unanswered(error) } else { DeliveryError::NotNow(error) })
    }
}

/// Gives the server the text and gets its answer; `written` becomes true when the final dot is about to be written.
async fn give(
    connection: &mut AsyncSmtpConnection,
    letter: &Letter,
    written: &AtomicBool,
) -> Result<(), (&'static str, SmtpError)> {
    connection.command(Data).await.map_err(|error| ("DATA", error))?;
    // The iterator is asked for more when what it gave has been written; after that comes the final dot.
    let end = iter::from_fn(|| {
        written.store(true, Ordering::Relaxed);
        None
    });
    let text = iter::once(letter.text.as_slice()).chain(end);
    connection.message_iter(text).await.map(|_| ()).map_err(|error| ("after the text", error))
}

/// Whether the other side had closed the connection before something was written, which only a write says.
fn is_broken_pipe(error: &SmtpError) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Tells the server who the mail is from.
async fn greet(connection: &mut AsyncSmtpConnection, letter: &Letter) -> Result<(), SmtpError> {
    // Where the server does not know such addresses it refuses them by itself.
    let international = letter.is_international() && connection.server_info().supports_feature(Extension::SmtpUtfEight);
    let parameters = if international { vec![MailParameter::SmtpUtfEight] } else { Vec::new() };
    connection.command(Mail::new(letter.envelope.from().cloned(), parameters)).await.map(|_| ())
}

/// What an error says, as one line that is not too long.
fn told(error: &SmtpError) -> String {
    let text: String = error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.chars().take(ERROR_MAX).collect()
}

#[cfg(test)]
mod tests {
    use lettre::{AsyncSmtpTransport, Tokio1Executor};

    use super::*;

    #[test]
    fn addresses_are_read_as_lettre_reads_them() {
        for (url, place) in [
            ("smtp://mail.example.org", Some("mail.example.org:25")),
            ("smtp://mail.example.org:2525", Some("mail.example.org:2525")),
            ("smtp://mail.example.org?tls=required", Some("mail.example.org:587")),
            ("smtp://mail.example.org?tls=opportunistic", Some("mail.example.org:587")),
            ("smtps://ann%40example.org:p%2Fw@mail.example.org/shop.example.org", Some("mail.example.org:465")),
            ("smtp://127.0.0.1:1025", Some("127.0.0.1:1025")),
            ("smtp://mail.example.org?tls=yes", None),
            ("http://mail.example.org", None),
            ("mail.example.org", None),
            ("smtp:", None),
        ] {
            assert_eq!(SmtpServer::parse(url).map(|server| server.to_string()).as_deref(), place, "{url}");
            assert_eq!(AsyncSmtpTransport::<Tokio1Executor>::from_url(url).is_ok(), place.is_some(), "{url}");
        }
        assert_eq!(SmtpServer::parse("smtp://[::1]:1025").map(|server| server.host), Some("::1".to_owned()));
    }

    #[test]
    fn credentials_are_decoded_and_tls_is_what_was_asked_for() {
        let server = SmtpServer::parse("smtps://ann%40example.org:p%2Fw@mail.example.org/shop.example.org");
        let server = server.expect("an address");
        let wanted = Credentials::new("ann@example.org".to_owned(), "p/w".to_owned());
        assert_eq!(server.credentials, Some(wanted));
        assert!(matches!(server.tls, Tls::Wrapper(_)));
        assert_eq!(server.name.to_string(), "shop.example.org");
        let required = SmtpServer::parse("smtp://mail.example.org?tls=required").expect("an address");
        assert!(matches!(required.tls, Tls::Required(_)) && required.credentials.is_none());
        assert!(SmtpServer::parse("smtp://a:%ff@mail.example.org").is_none(), "not UTF-8");
    }
}
