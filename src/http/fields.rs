//! Reads the members of a body or a query string, and names every bad one at once.
//!
//! A handler asks for each field by name and [`Rule`], then gives what it got to [`Fields::finish`]: either all of it
//! is there, or the 400 names each field that is missing or wrong, with what it should be and what it is.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::problem::{FieldError, Problem};

/// Characters of a bad value that are shown back to the client.
const SHOWN_CHARACTERS_MAX: usize = 60;

/// A value as the client wrote it.
#[derive(Debug, Clone)]
pub(crate) enum Given<'a> {
    /// A member of a JSON body.
    Json(&'a RawValue),
    /// A parameter of the query string, decoded.
    Query(Cow<'a, str>),
}

impl Given<'_> {
    /// The text, when it is one. A JSON string with half a surrogate pair is none.
    pub(crate) fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Query(text) => Some(Cow::Borrowed(text)),
            Self::Json(raw) => {
                let literal = raw.get();
                let inner = literal.strip_prefix('"')?.strip_suffix('"')?;
                if inner.contains('\\') {
                    serde_json::from_str::<String>(literal).ok().map(Cow::Owned)
                } else {
                    Some(Cow::Borrowed(inner))
                }
            }
        }
    }

    /// What the client wrote, letter for letter: of a JSON number its digits.
    pub(crate) fn literal(&self) -> &str {
        match self {
            Self::Json(raw) => raw.get(),
            Self::Query(text) => text,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Self::Json(raw) if raw.get() == "null")
    }

    fn shown(&self) -> String {
        let literal = self.literal();
        match literal.char_indices().nth(SHOWN_CHARACTERS_MAX) {
            Some((end, _)) => format!("{}… ({} characters)", &literal[..end], literal.chars().count()),
            None => literal.to_owned(),
        }
    }
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is not what the rule expects.
    Unexpected,
    /// More exactly, this.
    Because(String),
}

/// What a field must be.
pub(crate) trait Rule {
    /// What the field means to the handler.
    type Value;

    /// What would be right: "must be …".
    fn expected(&self) -> String;

    /// Reads the value.
    ///
    /// # Errors
    /// [`Refused`] when it is not what the rule expects.
    fn read(&self, given: &Given<'_>) -> Result<Self::Value, Refused>;

    /// Whether the value is never to be shown, not even when it is wrong.
    fn is_secret(&self) -> bool {
        false
    }
}

/// The members of one body or query string, and what was found wrong with them so far.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    members: Vec<(Cow<'a, str>, Given<'a>)>,
    errors: Vec<FieldError>,
}

impl<'a> Fields<'a> {
    /// Of these members; of two with one name the last counts.
    pub(crate) fn new(members: Vec<(Cow<'a, str>, Given<'a>)>) -> Self {
        Self { members, errors: Vec::new() }
    }

    /// The parameters of a query string.
    pub(crate) fn of_query(query: &'a str) -> Self {
        if query.is_empty() {
            return Self::new(Vec::new());
        }
        let pairs = actix_web::web::Query::<Vec<(String, String)>>::from_query(query);
        let pairs = pairs.map(actix_web::web::Query::into_inner).unwrap_or_default();
        Self::new(pairs.into_iter().map(|(name, value)| (name.into(), Given::Query(value.into()))).collect())
    }

    /// A field that must be there. `None` when it is not, or is wrong; [`finish`](Self::finish) says so.
    pub(crate) fn required<R: Rule>(&mut self, name: &'static str, rule: R) -> Option<R::Value> {
        match self.find(name) {
            Some(given) if !given.is_null() => self.read(name, &rule, &given),
            Some(_) | None => {
                self.refuse(name, format!("is missing; it {}", rule.expected()));
                None
            }
        }
    }

    /// A field that may be missing or null: `Some(None)` then.
    pub(crate) fn optional<R: Rule>(&mut self, name: &'static str, rule: R) -> Option<Option<R::Value>> {
        match self.find(name) {
            Some(given) if !given.is_null() => self.read(name, &rule, &given).map(Some),
            Some(_) | None => Some(None),
        }
    }

    /// A field of a change: `Some(None)` leaves it as it is, `Some(Some(None))`, written as null, removes it.
    pub(crate) fn removable<R: Rule>(&mut self, name: &'static str, rule: R) -> Option<Option<Option<R::Value>>> {
        match self.find(name) {
            Some(given) if given.is_null() => Some(Some(None)),
            Some(given) => self.read(name, &rule, &given).map(|value| Some(Some(value))),
            None => Some(None),
        }
    }

    /// Says that a field is wrong.
    pub(crate) fn refuse(&mut self, name: &'static str, detail: impl Into<String>) {
        self.errors.push(FieldError { field: name.into(), detail: detail.into() });
    }

    /// All that was read, when nothing was wrong.
    ///
    /// # Errors
    /// The 400 that names every field that is missing or wrong.
    pub(crate) fn finish<C: Complete>(self, read: C) -> Result<C::Values, Problem> {
        match read.complete() {
            Some(values) if self.errors.is_empty() => Ok(values),
            Some(_) | None => Err(Problem::fields(self.errors)),
        }
    }

    fn find(&self, name: &str) -> Option<Given<'a>> {
        self.members.iter().rev().find(|(known, _)| known == name).map(|(_, given)| given.clone())
    }

    fn read<R: Rule>(&mut self, name: &'static str, rule: &R, given: &Given<'_>) -> Option<R::Value> {
        let refused = match rule.read(given) {
            Ok(value) => return Some(value),
            Err(refused) => refused,
        };
        let why = match refused {
            Refused::Unexpected => rule.expected(),
            Refused::Because(why) => why,
        };
        let detail = if rule.is_secret() { why } else { format!("{why}, not {}", given.shown()) };
        self.refuse(name, detail);
        None
    }
}

/// What a handler read: one field, or several as a tuple.
pub(crate) trait Complete {
    /// The same without the outer `Option`s.
    type Values;

    /// All of it, `None` when a part is missing.
    fn complete(self) -> Option<Self::Values>;
}

impl<A> Complete for Option<A> {
    type Values = A;

    fn complete(self) -> Option<A> {
        self
    }
}

macro_rules! complete_tuple {
    ($($name:ident)*) => {
        impl<$($name),*> Complete for ($(Option<$name>,)*) {
            type Values = ($($name,)*);

            #[expect(non_snake_case, reason = "the types' names name the values too")]
            fn complete(self) -> Option<Self::Values> {
                let ($($name,)*) = self;
                Some(($($name?,)*))
            }
        }
    };
}

complete_tuple!(A B);
complete_tuple!(A B C);
complete_tuple!(A B C D);
complete_tuple!(A B C D E);
complete_tuple!(A B C D E F);

#[cfg(test)]
mod tests {
    use actix_web::body::MessageBody;
    use serde_json::Value;

    use super::super::body::parse_object;
    use super::super::rules::{Integer, Secret, Text};
    use super::*;

    fn errors(problem: &Problem) -> Vec<(String, String)> {
        let bytes = problem.response("r").into_body().try_into_bytes().expect("a body");
        let document: Value = serde_json::from_slice(&bytes).expect("JSON");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let errors = document["errors"].as_array().expect("errors");
        errors.iter().map(|error| (text(&error["field"]), text(&error["detail"]))).collect()
    }

    #[test]
    fn every_bad_field_is_named_at_once_with_what_is_right() {
        let mut fields = parse_object(br#"{"name": "ab", "quantity": -5}"#).expect("an object");
        let name = fields.required("name", Text::line(3, 255));
        let quantity = fields.required("quantity", Integer(1, 10));
        let sku = fields.required("sku", Text::line(3, 64));
        let problem = fields.finish((name, quantity, sku)).expect_err("bad fields");
        let errors = errors(&problem);
        assert_eq!(errors.iter().map(|(field, _)| field.as_str()).collect::<Vec<_>>(), ["name", "quantity", "sku"]);
        assert_eq!(errors[0].1, r#"must be a text of 3 to 255 characters, not "ab""#);
        assert_eq!(errors[1].1, "must be a whole number from 1 to 10, not -5");
        assert_eq!(errors[2].1, "is missing; it must be a text of 3 to 64 characters");
    }

    #[test]
    fn the_last_of_two_members_counts_and_unknown_ones_do_not() {
        let mut fields = parse_object(br#"{"n": "x", "other": [1, {"n": 9}], "n": 2}"#).expect("an object");
        let number = fields.required("n", Integer(1, 10));
        assert_eq!(fields.finish(number).expect("right"), 2);
    }

    #[test]
    fn null_is_absent_or_removes() {
        let mut fields = parse_object(br#"{"a": null}"#).expect("an object");
        assert_eq!(fields.optional("a", Integer(1, 2)), Some(None));
        assert_eq!(fields.removable("a", Integer(1, 2)), Some(Some(None)));
        assert_eq!(fields.removable("b", Integer(1, 2)), Some(None));
        assert_eq!(fields.required("a", Integer(1, 2)), None);
        assert_eq!(errors(&fields.finish(None::<()>).expect_err("missing")).len(), 1);
    }

    #[test]
    fn long_values_are_cut_and_secrets_are_not_shown() {
        let body = format!(r#"{{"name": "{}", "password": "hunter2"}}"#, "é".repeat(300));
        let mut fields = parse_object(body.as_bytes()).expect("an object");
        let name = fields.required("name", Text::line(3, 255));
        let password = fields.required("password", Secret(8, 128));
        let errors = errors(&fields.finish((name, password)).expect_err("bad"));
        assert!(errors[0].1.ends_with("… (302 characters)"), "{errors:?}");
        assert!(!errors[1].1.contains("hunter2"), "{errors:?}");
    }

    #[test]
    fn a_query_is_read_by_the_same_rules() {
        let mut fields = Fields::of_query("limit=5&q=a%20b&limit=0");
        assert_eq!(fields.required("q", Text::line(1, 10)).as_deref(), Some("a b"));
        let limit = fields.required("limit", Integer(1, 100));
        let errors = errors(&fields.finish(limit).expect_err("bad"));
        assert_eq!(errors, [("limit".to_owned(), "must be a whole number from 1 to 100, not 0".to_owned())]);
    }
}
