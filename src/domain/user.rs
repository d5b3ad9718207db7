//! Users: roles, account states, and what counts as an e-mail address.

use super::names;
use std::fmt;

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Buys.
    User,
    /// Runs the shop.
    Admin,
}

names!(Role { User = "USER", Admin = "ADMIN" });
/// Whether an account may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccountStatus {
    /// It may.
    Active,
    /// An administrator has closed it for now.
    Suspended,
}

names!(AccountStatus { Active = "ACTIVE", Suspended = "SUSPENDED" });
/// An e-mail address, in lower case: two spellings of one address are one account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EmailAddress(String);

/// The text is no e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an e-mail address such as ann@example.org, at most 254 characters")]
pub struct InvalidEmailAddress;

impl EmailAddress {
    /// Takes a text that has the shape of an address: one `@`, something before it, a name with letters, digits,
    /// hyphens and inner dots behind it, no white space or control character, at most 254 characters (RFC 5321).
    /// Whether mail reaches it only the verification code can tell.
    ///
    /// # Errors
    /// [`InvalidEmailAddress`] when the text has another shape.
    pub fn parse(text: &str) -> Result<Self, InvalidEmailAddress> {
        let (local, domain) = text.rsplit_once('@').ok_or(InvalidEmailAddress)?;
        let local_ok = !local.is_empty()
            && local.len() <= 64
            && !local.contains(|c: char| c.is_whitespace() || c.is_control() || "@<>()[],;:\\\"".contains(c))
            && local.split('.').all(|part| !part.is_empty());
        let label_ok = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_alphanumeric() || c == '-')
        };
        let domain_ok = domain.split('.').all(label_ok);
        if text.len() <= 254 && local_ok && domain_ok {
            Ok(Self(text.to_lowercase()))
        } else {
            Err(InvalidEmailAddress)
        }
    }

    /// The address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_in_lower_case() {
        assert_eq!(
            EmailAddress::parse("Ann.Lee+x@Example.ORG").map(|a| a.to_string()),
            Ok("ann.lee+x@example.org".to_owned())
        );
        assert!(EmailAddress::parse("root@localhost").is_ok());
    }

    #[test]
    fn other_shapes_are_refused() {
        let long = format!("{}@example.org", "a".repeat(65));
        for text in [
            "",
            "ann",
            "@example.org",
            "ann@",
            "ann lee@example.org",
            "a@b@c",
            "ann@-x.org",
            "ann@x..org",
            ".ann@x.org",
            "ann@x.org\n",
            "Ann <ann@x.org>",
            &long,
        ] {
            assert_eq!(EmailAddress::parse(text), Err(InvalidEmailAddress), "{text:?}");
        }
    }
}
