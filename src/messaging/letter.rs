//! A kept mail in the form in which it travels (RFC 5322, MIME): the same bytes at every try.
//!
//! What people typed can not become a header: addresses are read strictly, and a subject or a name is one line.

use std::time::{Duration, UNIX_EPOCH};

use lettre::Address;
use lettre::address::Envelope;
use lettre::message::{Mailbox, Message, MultiPart, MultiPartKind, SinglePart};

use crate::persistence::records::NewEmail;

/// A mail that can be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// From whom and to whom, as the server is told.
    pub envelope: Envelope,
    /// Headers and text, ASCII only, lines end in CRLF.
    pub text: Vec<u8>,
}

/// A mail that no server would take.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    /// An address is none.
    #[error("{0:?} is not an address that mail can be sent from or to")]
    Address(String),
    /// The parts do not make a mail.
    #[error("the mail can not be put together: {0}")]
    Form(#[from] lettre::error::Error),
}

impl Letter {
    /// Puts a mail into its form. Its `Message-ID` is made of its identifier, so that whoever gets it twice can tell.
    ///
    /// # Errors
    /// [`LetterError`]: no other try would fare better.
    pub fn of(mail: &NewEmail) -> Result<Self, LetterError> {
        let sender = mailbox(&mail.sender)?;
        let recipient = mailbox(&mail.recipient)?;
        let message_id = format!("<{}@{}>", mail.id, sender.email.domain());
        let since_epoch = Duration::from_micros(u64::try_from(mail.created_at.0).unwrap_or_default());
        let builder = Message::builder()
            .message_id(Some(message_id))
            .date(UNIX_EPOCH + since_epoch)
            .from(sender)
            .to(recipient)
            .subject(one_line(&mail.subject));
        let plain = SinglePart::plain(mail.body.clone());
        let message = match &mail.html {
            None => builder.singlepart(plain)?,
            Some(html) => {
                // Nobody who typed a part of the text can have known the identifier.
                let parts = MultiPart::builder().kind(MultiPartKind::Alternative).boundary(format!("={}", mail.id));
                builder.multipart(parts.singlepart(plain).singlepart(SinglePart::html(html.clone())))?
            }
        };
        Ok(Self { envelope: message.envelope().clone(), text: message.formatted() })
    }

    /// Whether an address has letters beyond ASCII (RFC 6531).
    pub(super) fn is_international(&self) -> bool {
        self.envelope.to().iter().chain(self.envelope.from()).any(|address| !address.to_string().is_ascii())
    }
}

/// `ann@example.org` or `Ann Lee <ann@example.org>`.
fn mailbox(text: &str) -> Result<Mailbox, LetterError> {
    let (name, address) = match text.strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) {
        Some((name, address)) => (Some(one_line(name).trim().to_owned()), address),
        None => (None, text),
    };
    let address = address.parse::<Address>().map_err(|_| LetterError::Address(text.to_owned()))?;
    Ok(Mailbox::new(name.filter(|name| !name.is_empty()), address))
}

/// The text with a space in place of each control character and each end of a line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::EmailId;
    use crate::domain::timestamp::Timestamp;
    use crate::persistence::records::EmailStatus;

    fn mail() -> NewEmail {
        NewEmail {
            id: EmailId(Uuid::from_u128(7)),
            sender: "The Tea Shop <hello@shop.example>".to_owned(),
            recipient: "ann@example.org".to_owned(),
            subject: "Your order".to_owned(),
            body: "Two\nlines".to_owned(),
            html: Some("<p>Two</p>".to_owned()),
            source: "orders".to_owned(),
            status: EmailStatus::Queued,
            created_at: Timestamp(1_795_339_800_000_000),
        }
    }

    fn written(mail: &NewEmail) -> String {
        String::from_utf8(Letter::of(mail).expect("a letter").text).expect("ASCII")
    }

    fn headers(mail: &NewEmail) -> Vec<String> {
        let text = written(mail);
        let head = text.split("\r\n\r\n").next().expect("headers").to_owned();
        head.replace("\r\n ", " ").split("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn every_try_sends_the_same_bytes() {
        assert_eq!(written(&mail()), written(&mail()));
        let headers = headers(&mail());
        let wanted = [
            "Message-ID: <00000000-0000-0000-0000-000000000007@shop.example>",
            "Date: Sun, 22 Nov 2026 09:30:00 +0000",
            "To: ann@example.org",
            "Subject: Your order",
        ];
        for header in wanted {
            assert!(headers.iter().any(|found| found == header), "{header} in {headers:#?}");
        }
    }

    #[test]
    fn both_forms_are_in_it() {
        let text = written(&mail());
        assert!(text.contains("multipart/alternative"), "{text}");
        let (plain, html) = (text.find("Two\r\nlines"), text.find("<p>Two</p>"));
        assert!(plain.is_some() && plain < html, "the better form is the last one: {text}");
        assert!(!written(&NewEmail { html: None, ..mail() }).contains("multipart"));
    }

    #[test]
    fn nothing_typed_becomes_a_header() {
        let evil = "x\r\nBcc: all@example.org\r\n\r\nbody\u{2028}\0";
        let tricked =
            NewEmail { subject: evil.to_owned(), sender: format!("\"Ann\" {evil} <hello@shop.example>"), ..mail() };
        let found = headers(&tricked);
        assert!(found.iter().all(|header| !header.starts_with("Bcc")), "{found:#?}");
        let names: Vec<&str> = found.iter().filter_map(|header| header.split(':').next()).collect();
        assert_eq!(names, ["Message-ID", "Date", "From", "To", "Subject", "MIME-Version", "Content-Type"]);
        assert_eq!(Letter::of(&tricked).expect("a letter").envelope.to().len(), 1);
        for recipient in ["ann@example.org\r\nBcc: b@example.org", "a@example.org, b@example.org", "ann", ""] {
            let letter = Letter::of(&NewEmail { recipient: recipient.to_owned(), ..mail() });
            assert!(matches!(letter, Err(LetterError::Address(_))), "{recipient:?}");
        }
    }

    #[test]
    fn long_lines_and_other_letters_travel_as_ascii_lines() {
        let body = format!("{}\n.\nGrüße ☕", "a".repeat(5_000));
        let text = written(&NewEmail { body, subject: "Grüße ☕".repeat(50), html: None, ..mail() });
        assert!(text.is_ascii());
        assert!(text.split("\r\n").all(|line| line.len() <= 998), "{text}");
    }
}
