//! Cursors: where a page of a list ended, as an opaque text.
//!
//! A cursor holds the last row's sort key and identifier, so the next page starts right behind that row however many
//! rows came in meanwhile. It names its list and sort too; another list refuses it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::StoreError;
use super::records::{Listed, Page};

/// Where a page ended. `K` is what the list is sorted by before the identifier; `()` when nothing is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor<K = ()> {
    /// The list and its sort.
    list: String,
    /// The last row's sort key.
    pub(super) key: K,
    /// The last row's identifier.
    pub(super) id: Uuid,
}

impl<K: Serialize + DeserializeOwned> Cursor<K> {
    /// The cursor behind a row of `list`.
    pub(super) fn behind(list: &str, key: K, id: Uuid) -> Self {
        Self { list: list.to_owned(), key, id }
    }

    /// The text that a client gets.
    pub(super) fn encode(&self) -> Result<String, StoreError> {
        let json = serde_json::to_vec(self).map_err(|error| StoreError::Corrupt(format!("a cursor: {error}")))?;
        Ok(URL_SAFE_NO_PAD.encode(json))
    }

    /// Where `page` starts, `None` for the first page.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`] when the text is no cursor of `list`.
    pub(super) fn of_page(list: &str, page: &Page) -> Result<Option<Self>, StoreError> {
        let Some(text) = &page.after else { return Ok(None) };
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| StoreError::InvalidCursor)?;
        let cursor: Self = serde_json::from_slice(&json).map_err(|_| StoreError::InvalidCursor)?;
        if cursor.list == list { Ok(Some(cursor)) } else { Err(StoreError::InvalidCursor) }
    }
}

/// Makes a page of rows that were read with one more than its limit; that one only tells that there are more.
/// `cursor_behind` makes the cursor of the last row that is shown.
pub(super) fn page_of<R, T, K>(
    mut rows: Vec<R>,
    limit: u32,
    cursor_behind: impl Fn(&R) -> Cursor<K>,
) -> Result<Listed<T>, StoreError>
where
    T: TryFrom<R, Error = StoreError>,
    K: Serialize + DeserializeOwned,
{
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = match rows.last() {
        Some(last) if more => Some(cursor_behind(last).encode()?),
        Some(_) | None => None,
    };
    let rows = rows.into_iter().map(T::try_from).collect::<Result<Vec<T>, _>>()?;
    Ok(Listed { rows, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Shown(u128);

    impl TryFrom<u128> for Shown {
        type Error = StoreError;

        fn try_from(row: u128) -> Result<Self, StoreError> {
            Ok(Self(row))
        }
    }

    fn page(after: Option<String>) -> Page {
        Page { after, limit: 2 }
    }

    #[test]
    fn a_cursor_survives_its_text_form() {
        let cursor = Cursor::behind("products by name", "lämp".to_owned(), Uuid::from_u128(7));
        let text = cursor.encode().expect("text");
        assert_eq!(Cursor::of_page("products by name", &page(Some(text))).expect("a cursor"), Some(cursor));
        assert_eq!(Cursor::<String>::of_page("products by name", &page(None)).expect("no cursor"), None);
    }

    #[test]
    fn what_no_list_gave_out_is_refused() {
        let other_list = Cursor::behind("orders", (), Uuid::nil()).encode().expect("text");
        let other_key = Cursor::behind("products by name", 12_i64, Uuid::nil()).encode().expect("text");
        let cut = other_list[..other_list.len() - 3].to_owned();
        for text in [other_list, other_key, cut, String::new(), "@@".to_owned(), "e30".to_owned()] {
            let answer = Cursor::<String>::of_page("products by name", &page(Some(text.clone())));
            assert!(matches!(answer, Err(StoreError::InvalidCursor)), "{text:?}: {answer:?}");
        }
    }

    #[test]
    fn the_row_too_many_is_not_shown() {
        let listed =
            |rows: Vec<u128>| page_of::<_, Shown, _>(rows, 2, |row| Cursor::behind("l", (), Uuid::from_u128(*row)));
        let more = listed(vec![9, 8, 7]).expect("a page");
        assert_eq!(more.rows, [Shown(9), Shown(8)]);
        let cursor = Cursor::<()>::of_page("l", &page(more.next)).expect("a cursor").expect("more");
        assert_eq!(cursor.id, Uuid::from_u128(8));
        assert_eq!(listed(vec![9, 8]).expect("a page"), Listed { rows: vec![Shown(9), Shown(8)], next: None });
    }
}
