//! What single fields may be. Each rule says what would be right, in the words that the client is shown.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::str::FromStr;

use crate::domain::money::{Currency, Money};
use crate::domain::user::EmailAddress;

use super::fields::{Given, Refused, Rule};

/// Units that one request may name.
pub(crate) const QUANTITY_MAX: i64 = 1_000_000;

/// Bytes of a shipping address that is an object.
const ADDRESS_BYTES_MAX: usize = 4096;
/// Characters of a shipping address that is a text.
const ADDRESS_CHARACTERS_MAX: usize = 1000;

/// A text, by its number of characters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text {
    min: usize,
    max: usize,
    one_line: bool,
}

impl Text {
    /// Of one line: a name, a reference. No control character, and not of white space alone.
    pub(crate) const fn line(min: usize, max: usize) -> Self {
        Self { min, max, one_line: true }
    }

    /// Of any number of lines: a description, a mail. No control character but tabs and ends of lines.
    pub(crate) const fn lines(min: usize, max: usize) -> Self {
        Self { min, max, one_line: false }
    }

    fn accepts(&self, text: &str) -> Result<(), Refused> {
        let allowed = |c: char| !c.is_control() || (!self.one_line && matches!(c, '\n' | '\r' | '\t'));
        if !(self.min..=self.max).contains(&text.chars().count()) {
            Err(Refused::Unexpected)
        } else if !text.chars().all(allowed) {
            Err(Refused::Because("must be a text without control characters".to_owned()))
        } else if self.min > 0 && text.trim().is_empty() {
            Err(Refused::Because("must be more than white space".to_owned()))
        } else {
            Ok(())
        }
    }
}

impl Rule for Text {
    type Value = String;

    fn expected(&self) -> String {
        characters(self.min, self.max)
    }

    fn read(&self, given: &Given<'_>) -> Result<String, Refused> {
        let text = given.text().ok_or(Refused::Unexpected)?;
        self.accepts(&text)?;
        Ok(text.into_owned())
    }
}

/// A password, code or token, from so many characters to so many; never shown back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Secret(pub usize, pub usize);

impl Rule for Secret {
    type Value = String;

    fn expected(&self) -> String {
        characters(self.0, self.1)
    }

    fn read(&self, given: &Given<'_>) -> Result<String, Refused> {
        let text = given.text().ok_or(Refused::Unexpected)?;
        let fits = (self.0..=self.1).contains(&text.chars().count());
        if fits { Ok(text.into_owned()) } else { Err(Refused::Unexpected) }
    }

    fn is_secret(&self) -> bool {
        true
    }
}

fn characters(min: usize, max: usize) -> String {
    if min == 0 {
        format!("must be a text of at most {max} characters")
    } else {
        format!("must be a text of {min} to {max} characters")
    }
}

/// A whole number, from the first to the second; written without point or exponent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Integer(pub i64, pub i64);

impl Integer {
    /// Units, 1 or more.
    pub(crate) const UNITS: Self = Self(1, QUANTITY_MAX);
    /// Units, where none is a meaningful number.
    pub(crate) const UNITS_OR_NONE: Self = Self(0, QUANTITY_MAX);
}

impl Rule for Integer {
    type Value = i64;

    fn expected(&self) -> String {
        format!("must be a whole number from {} to {}", self.0, self.1)
    }

    fn read(&self, given: &Given<'_>) -> Result<i64, Refused> {
        let number = given.literal().parse::<i64>().map_err(|_| Refused::Unexpected)?;
        if (self.0..=self.1).contains(&number) { Ok(number) } else { Err(Refused::Unexpected) }
    }
}

/// An amount of money in major units, a JSON number, 0 or more; read from its digits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AmountOf(pub Currency);

impl Rule for AmountOf {
    type Value = Money;

    fn expected(&self) -> String {
        format!(
            "must be a number: an amount in {}, 0 or more, of at most {} decimals",
            self.0.code(),
            self.0.decimals()
        )
    }

    fn read(&self, given: &Given<'_>) -> Result<Money, Refused> {
        let literal = given.literal();
        if !literal.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            return Err(Refused::Unexpected);
        }
        self.0.parse(literal).map_err(|error| Refused::Because(error.to_string()))
    }
}

/// One of some names.
#[derive(Debug, Clone)]
pub(crate) struct OneOf<'a, T>(pub &'a [(T, &'static str)]);

impl<T: Copy> Rule for OneOf<'_, T> {
    type Value = T;

    fn expected(&self) -> String {
        let names: Vec<_> = self.0.iter().map(|(_, name)| *name).collect();
        format!("must be one of {}", names.join(", "))
    }

    fn read(&self, given: &Given<'_>) -> Result<T, Refused> {
        let text = given.text().ok_or(Refused::Unexpected)?;
        self.0.iter().find(|(_, name)| *name == text).map(|(value, _)| *value).ok_or(Refused::Unexpected)
    }
}

/// An identifier of ours, which is a UUID.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Id<T>(PhantomData<T>);

impl<T> Id<T> {
    /// Of the kind `T`.
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: FromStr> Rule for Id<T> {
    type Value = T;

    fn expected(&self) -> String {
        "must be an id as this shop gave it out (a UUID)".to_owned()
    }

    fn read(&self, given: &Given<'_>) -> Result<T, Refused> {
        given.text().and_then(|text| text.parse().ok()).ok_or(Refused::Unexpected)
    }
}

/// An e-mail address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Email;

impl Rule for Email {
    type Value = EmailAddress;

    fn expected(&self) -> String {
        "must be an e-mail address such as ann@example.org, at most 254 characters".to_owned()
    }

    fn read(&self, given: &Given<'_>) -> Result<EmailAddress, Refused> {
        given.text().and_then(|text| EmailAddress::parse(&text).ok()).ok_or(Refused::Unexpected)
    }
}

/// From whom a mail is: an address, or a name with an address in angle brackets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender;

impl Rule for Sender {
    type Value = String;

    fn expected(&self) -> String {
        "must be an e-mail address such as ann@example.org or Ann <ann@example.org>".to_owned()
    }

    fn read(&self, given: &Given<'_>) -> Result<String, Refused> {
        let text = given.text().ok_or(Refused::Unexpected)?;
        Text::line(1, 320).accepts(&text)?;
        let address = match text.strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) {
            Some((_, address)) => address,
            None => &text,
        };
        EmailAddress::parse(address).map_err(|_| Refused::Unexpected)?;
        Ok(text.into_owned())
    }
}

/// Where an order goes: a text or an object, kept and given back as it was written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShippingAddress;

impl Rule for ShippingAddress {
    /// The JSON text.
    type Value = String;

    fn expected(&self) -> String {
        format!("must be a text of 1 to {ADDRESS_CHARACTERS_MAX} characters or an object of at most 4 KiB")
    }

    fn read(&self, given: &Given<'_>) -> Result<String, Refused> {
        let literal = given.literal();
        if literal.starts_with('{') {
            // Read once as a value: whoever reads it later shall not meet nesting without end.
            let readable = serde_json::from_str::<serde_json::Value>(literal).is_ok();
            return match (literal.len() <= ADDRESS_BYTES_MAX, readable) {
                (true, true) => Ok(literal.to_owned()),
                (true, false) => {
                    Err(Refused::Because("must be an object of less nesting and of whole characters".to_owned()))
                }
                (false, _) => Err(Refused::Unexpected),
            };
        }
        let text: Cow<'_, str> = given.text().ok_or(Refused::Unexpected)?;
        Text::lines(1, ADDRESS_CHARACTERS_MAX).accepts(&text)?;
        Ok(literal.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use crate::domain::ids::ProductId;
    use crate::domain::order::OrderStatus;

    use super::*;

    fn read<R: Rule>(rule: R, json: &str) -> Result<R::Value, Refused> {
        let raw: &RawValue = serde_json::from_str(json).expect("JSON");
        rule.read(&Given::Json(raw))
    }

    #[test]
    fn quantities_are_integer_literals_in_range() {
        assert_eq!(read(Integer::UNITS, "1000000"), Ok(1_000_000));
        for bad in ["0", "-1", "1.0", "1.5", "1e2", "9223372036854775808", "1000001", "\"1\"", "true", "[]", "{}"] {
            assert_eq!(read(Integer::UNITS, bad), Err(Refused::Unexpected), "{bad}");
        }
        assert_eq!(read(Integer::UNITS_OR_NONE, "0"), Ok(0));
    }

    #[test]
    fn money_is_read_from_its_digits() {
        let usd = Currency::from_code("USD").expect("a currency");
        assert_eq!(read(AmountOf(usd), "19.99"), Ok(Money(1999)));
        assert_eq!(read(AmountOf(usd), "90071992547409.93"), Ok(Money(9_007_199_254_740_993)));
        for bad in ["\"19.99\"", "true", "[1]", "{}"] {
            assert_eq!(read(AmountOf(usd), bad), Err(Refused::Unexpected), "{bad}");
        }
        for bad in ["-0.01", "19.999", "1e2", "9223372036854775808"] {
            assert!(matches!(read(AmountOf(usd), bad), Err(Refused::Because(_))), "{bad}");
        }
    }

    #[test]
    fn lengths_count_characters_and_control_characters_are_refused() {
        let name = Text::line(3, 5);
        assert_eq!(read(name, r#""éàü""#).as_deref(), Ok("éàü"));
        assert_eq!(read(name, "\"\\u00e9\\u00e0\\u00fc\"").as_deref(), Ok("éàü"));
        for bad in
            [r#""ab""#, r#""abcdef""#, r#""a\nbc""#, "\"a\\u0000bc\"", r#""    ""#, "3", "null", "\"\\ud800abc\""]
        {
            assert!(read(name, bad).is_err(), "{bad}");
        }
        assert_eq!(read(Text::lines(0, 5), r#""a\nb""#).as_deref(), Ok("a\nb"));
        assert!(read(Text::lines(0, 5), "\"a\\u0000\"").is_err());
    }

    #[test]
    fn names_and_ids_are_exact() {
        assert_eq!(read(OneOf(&OrderStatus::NAMES), r#""SHIPPED""#), Ok(OrderStatus::Shipped));
        assert!(read(OneOf(&OrderStatus::NAMES), r#""shipped""#).is_err());
        assert!(read(Id::<ProductId>::new(), r#""0192aaaa-0000-7000-8000-000000000001""#).is_ok());
        for bad in [r#""17""#, "17", r#""""#] {
            assert!(read(Id::<ProductId>::new(), bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_sender_may_have_a_name() {
        assert_eq!(read(Sender, r#""Shop <shop@localhost>""#).as_deref(), Ok("Shop <shop@localhost>"));
        assert!(read(Sender, r#""shop@localhost""#).is_ok());
        for bad in [r#""Shop""#, r#""Shop <shop>""#, r#""<>""#, r#""a\r\nBcc: x <shop@localhost>""#] {
            assert!(read(Sender, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_given_back_as_it_was() {
        let object = r#"{"street": "1 Way",  "lines": [1.50]}"#;
        assert_eq!(read(ShippingAddress, object).as_deref(), Ok(object));
        assert_eq!(read(ShippingAddress, r#""1 Way\nTown""#).as_deref(), Ok(r#""1 Way\nTown""#));
        let long_text = format!("\"{}\"", "a".repeat(1001));
        let long_object = format!("{{\"a\":\"{}\"}}", "a".repeat(4096));
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(1000), "]".repeat(1000));
        for bad in [r#""""#, "1", "[]", "true", &long_text, &long_object, &deep] {
            assert!(read(ShippingAddress, bad).is_err(), "{bad}");
        }
    }
}
