//! Lists: which part a client asks for, and the form in which it gets it.

use serde::Serialize;

use crate::persistence::records::{Listed, Page};

use super::fields::Fields;
use super::rules::{Integer, Text};

/// Rows of a page when the client does not say.
const LIMIT_DEFAULT: u32 = 20;
const LIMIT_MAX: i64 = 100;
/// Characters of a cursor; ours are shorter.
const CURSOR_CHARACTERS_MAX: usize = 1024;

/// Reads `limit` and `cursor`.
pub(crate) fn page(fields: &mut Fields<'_>) -> Option<Page> {
    let limit = fields.optional("limit", Integer(1, LIMIT_MAX));
    let after = fields.optional("cursor", Text::line(1, CURSOR_CHARACTERS_MAX));
    let limit = limit?.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(LIMIT_DEFAULT);
    Some(Page { after: after?, limit })
}

/// One page of a list, as the client gets it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct List<T> {
    /// The rows.
    pub data: Vec<T>,
    /// What to ask for the rows behind these by; null when these are the last.
    pub next_cursor: Option<String>,
}

impl<T> List<T> {
    /// Of what the store gave, each row made a document.
    pub(crate) fn of<'a, R>(listed: &'a Listed<R>, document: impl FnMut(&'a R) -> T) -> Self {
        Self { data: listed.rows.iter().map(document).collect(), next_cursor: listed.next.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_20_rows_unless_1_to_100_are_asked_for() {
        let read = |query: &str| page(&mut Fields::of_query(query));
        assert_eq!(read(""), Some(Page { after: None, limit: 20 }));
        assert_eq!(read("limit=100&cursor=abc"), Some(Page { after: Some("abc".to_owned()), limit: 100 }));
        for bad in ["limit=0", "limit=101", "limit=-1", "limit=1.5", "limit=", "limit=x", "cursor="] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
