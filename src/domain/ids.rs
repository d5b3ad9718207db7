//! Identifiers: one type a thing, so that an order's id can not be passed for a product's.
//!
//! All are UUIDv7 (RFC 9562), made by the caller: they grow with time, which keeps index pages together.
//! A cart session is the exception: its identifier is a secret, see [`CartSessionId`].

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use uuid::Uuid;
use uuid::fmt::Simple;

/// Things by their identifiers, or by what has one in it. This program makes them: nobody chooses them to collide, so a
/// fast hash will do.
pub type IdMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
/// Identifiers, as in an [`IdMap`].
pub type IdSet<K> = HashSet<K, foldhash::fast::RandomState>;

/// The text is not an identifier of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier of this shop")]
pub struct InvalidId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::try_parse(text).map(Self).map_err(|_| InvalidId)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
            }
        }
    };
}

id!(
    /// A user as the sign-in knows them.
    UserId
);
id!(
    /// A user's profile: name and addresses, apart from the sign-in.
    ProfileId
);
id!(
    /// A product of the catalogue.
    ProductId
);
id!(
    /// The stock record of one product.
    InventoryId
);
id!(
    /// An order.
    OrderId
);
id!(
    /// One row of the stock ledger.
    MovementId
);
id!(
    /// An e-mail kept or sent.
    EmailId
);
id!(
    /// The row of a cart session: what other rows refer to. Not a secret; never shown to a client by itself.
    CartKey
);

/// What a guest holds to have a cart: 16 bytes that name the row and 16 random bytes that prove the right to it.
///
/// The first half grows with time, so that new carts share index pages; the 128 random bits are the secret.
/// The text form is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CartSessionId {
    /// The row's key.
    pub key: CartKey,
    /// 128 random bits, compared whenever the identifier is presented.
    pub secret: [u8; 16],
}

impl CartSessionId {
    /// Its text: the key's digits, and then the secret's.
    fn encode<'t>(&self, text: &'t mut [u8; 2 * Simple::LENGTH]) -> &'t str {
        let (key, secret) = text.split_at_mut(Simple::LENGTH);
        self.key.0.simple().encode_lower(key);
        Uuid::from_bytes(self.secret).simple().encode_lower(secret);
        // Digits are UTF-8.
        std::str::from_utf8(text).unwrap_or_default()
    }
}

impl fmt::Display for CartSessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 2 * Simple::LENGTH];
        f.write_str(self.encode(&mut text))
    }
}

impl fmt::Debug for CartSessionId {
    /// Shows the row's key only: the whole identifier gives the cart away.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CartSessionId({}…)", self.key)
    }
}

impl FromStr for CartSessionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.len() != 64 || !text.is_ascii() {
            return Err(InvalidId);
        }
        let (key, secret) = text.split_at(32);
        let part = |hex: &str| Uuid::try_parse(hex).map_err(|_| InvalidId);
        Ok(Self { key: CartKey(part(key)?), secret: part(secret)?.into_bytes() })
    }
}

impl Serialize for CartSessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [0; 2 * Simple::LENGTH];
        serializer.serialize_str(self.encode(&mut text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cart_session_id_survives_its_text_form() {
        let id = CartSessionId {
            key: CartKey(Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001)),
            secret: [0xab; 16],
        };
        let text = id.to_string();
        assert_eq!(text.len(), 64);
        assert_eq!(text.parse::<CartSessionId>().map(|back| back == id), Ok(true));
        assert_eq!(serde_json::to_value(id).expect("JSON"), text);
        assert_eq!(serde_json::to_value(id.key).expect("JSON"), id.key.to_string());
    }

    #[test]
    fn other_texts_are_not_cart_session_ids() {
        let short = "ab".repeat(16);
        let not_hex = "zz".repeat(32);
        let wide = "é".repeat(32);
        for text in ["", &short, &not_hex, &wide] {
            assert_eq!(text.parse::<CartSessionId>().map(|_| ()), Err(InvalidId), "{text}");
        }
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let id = CartSessionId { key: CartKey(Uuid::nil()), secret: [0xcd; 16] };
        assert!(!format!("{id:?}").contains("cdcd"));
    }
}
