//! Rows that go into a statement as two values, however many they are: a record of fixed width for each, one behind the
//! other, and the texts that they speak of. The statement takes them apart by position.
//!
//! A value for each cell would be a statement of its own for each number of rows, and an allocation for each cell. JSON
//! was a third of all that a batch took: each cell is looked for from the beginning of its row, and bytes go as digits.

use std::fmt::Write as _;

use uuid::Uuid;

/// What stands in a row, in one form for each type.
pub(super) trait Cell {
    /// Bytes of a record that it takes.
    const WIDTH: usize;

    /// Writes the expression that reads it back, from `at` bytes behind the record's beginning.
    fn read(from: Names, at: usize, into: &mut String);

    /// Puts it at the end of the last record.
    fn put(&self, rows: &mut Packed);
}

/// The parameters of a statement that have its rows, by their numbers: `$1`.
#[derive(Clone, Copy)]
pub(super) struct Names {
    pub(super) records: usize,
    pub(super) texts: usize,
}

impl Names {
    /// The bytes of a record from `at` on.
    fn bytes(self, at: usize, width: usize, into: &mut String) {
        let Self { records, .. } = self;
        // Writing to a text can not fail.
        let _ = write!(into, "substr(${records},place+{at},{width})");
    }

    fn number(self, at: usize, width: usize, into: &mut String) {
        into.push_str("CAST(");
        self.bytes(at, width, into);
        into.push_str("AS INTEGER)");
    }
}

/// Bytes as they are.
impl<const N: usize> Cell for [u8; N] {
    const WIDTH: usize = N;

    fn read(from: Names, at: usize, into: &mut String) {
        from.bytes(at, N, into);
    }

    fn put(&self, rows: &mut Packed) {
        rows.records.extend_from_slice(self);
    }
}

/// Its sixteen bytes.
impl Cell for Uuid {
    const WIDTH: usize = 16;

    fn read(from: Names, at: usize, into: &mut String) {
        <[u8; 16]>::read(from, at, into);
    }

    fn put(&self, rows: &mut Packed) {
        self.as_bytes().put(rows);
    }
}

/// Its decimal digits: what SQLite can make a number of.
impl Cell for i64 {
    const WIDTH: usize = 20;

    fn read(from: Names, at: usize, into: &mut String) {
        from.number(at, Self::WIDTH, into);
    }

    fn put(&self, rows: &mut Packed) {
        rows.number(*self, Self::WIDTH);
    }
}

/// Where it begins among the texts, and of how many bytes it is.
impl Cell for str {
    const WIDTH: usize = 2 * PLACE;

    fn read(from: Names, at: usize, into: &mut String) {
        let _ = write!(into, "CAST(substr(${},", from.texts);
        from.number(at, PLACE, into);
        into.push(',');
        from.number(at + PLACE, PLACE, into);
        into.push_str(")AS TEXT)");
    }

    /// A text ends at a NUL for some of SQLite's functions, so that two that differ behind it would be one: it gets a sign
    /// for what is not a character instead.
    fn put(&self, rows: &mut Packed) {
        if self.contains('\0') {
            return self.replace('\0', "\u{fffd}").as_str().put(rows);
        }
        let begins = rows.texts.len() + 1;
        rows.texts.extend_from_slice(self.as_bytes());
        for part in [begins, self.len()] {
            rows.number(i64::try_from(part).unwrap_or(i64::MAX), PLACE);
        }
    }
}

/// Digits of a place among the texts: enough for any, since a value has no more than 10^9 bytes.
const PLACE: usize = 10;

impl<T: Cell + ?Sized> Cell for &T {
    const WIDTH: usize = T::WIDTH;

    fn read(from: Names, at: usize, into: &mut String) {
        T::read(from, at, into);
    }

    fn put(&self, rows: &mut Packed) {
        (**self).put(rows);
    }
}

impl Cell for String {
    const WIDTH: usize = <str as Cell>::WIDTH;

    fn read(from: Names, at: usize, into: &mut String) {
        <str as Cell>::read(from, at, into);
    }

    fn put(&self, rows: &mut Packed) {
        self.as_str().put(rows);
    }
}

/// A sign whether it is there, and then it.
impl<T: Cell> Cell for Option<T> {
    const WIDTH: usize = 1 + T::WIDTH;

    fn read(from: Names, at: usize, into: &mut String) {
        into.push_str("iif(");
        from.bytes(at, 1, into);
        into.push_str("=x'01',");
        T::read(from, at + 1, into);
        into.push_str(",NULL)");
    }

    fn put(&self, rows: &mut Packed) {
        [u8::from(self.is_some())].put(rows);
        match self {
            Some(cell) => cell.put(rows),
            None => rows.records.resize(rows.records.len() + T::WIDTH, 0),
        }
    }
}

/// A row: cells one behind the other.
pub(super) trait Row {
    /// Bytes of a record.
    const WIDTH: usize;

    /// Writes the expressions that read it back, each behind a comma.
    fn read(from: Names, into: &mut String);

    /// Puts it at the end of the records.
    fn put(&self, rows: &mut Packed);
}

macro_rules! row {
    ($($cell:ident)+) => {
        impl<$($cell: Cell),+> Row for ($($cell,)+) {
            const WIDTH: usize = 0 $(+ $cell::WIDTH)+;

            fn read(from: Names, into: &mut String) {
                let mut _at = 0;
                $(
                    into.push(',');
                    $cell::read(from, _at, into);
                    _at += $cell::WIDTH;
                )+
            }

            #[allow(non_snake_case, reason = "a cell goes by the name of its type")]
            fn put(&self, rows: &mut Packed) {
                let ($($cell,)+) = self;
                $($cell.put(rows);)+
            }
        }
    };
}

row!(A);
row!(A B);
row!(A B C);
row!(A B C D);
row!(A B C D E);
row!(A B C D E F);
row!(A B C D E F G);
row!(A B C D E F G H I);
row!(A B C D E F G H I J K);
row!(A B C D E F G H I J K L M N O);
row!(A B C D E F G H I J K L M N O P);

/// Rows of one kind.
pub(super) struct Packed {
    pub(super) records: Vec<u8>,
    pub(super) texts: Vec<u8>,
    pub(super) rows: usize,
}

impl Packed {
    pub(super) fn of<R: Row>(rows: impl IntoIterator<Item = R>) -> Self {
        // A text of no bytes out of texts of no bytes would be NULL.
        let mut packed = Self { records: Vec::new(), texts: vec![b' '], rows: 0 };
        let rows = rows.into_iter();
        packed.records.reserve(rows.size_hint().0 * R::WIDTH);
        for row in rows {
            row.put(&mut packed);
            packed.rows += 1;
        }
        packed
    }

    /// Puts a number's digits, and blanks behind them.
    fn number(&mut self, number: i64, width: usize) {
        let (mut cell, mut digits) = ([b' '; i64::WIDTH], itoa::Buffer::new());
        let digits = digits.format(number).as_bytes();
        debug_assert!(digits.len() <= width, "{number} has more than {width} digits");
        cell[..digits.len()].copy_from_slice(digits);
        self.records.extend_from_slice(&cell[..width]);
    }
}

/// Begins a statement with its rows: the table `given`, whose columns are `place`, which grows from row to row, and those that are
/// named here, one for each cell.
pub(super) fn give<R: Row>(columns: &str, names: Names, statement: &mut String) {
    const { assert!(R::WIDTH > 0, "a row of nothing can not be counted") };
    let (width, records) = (R::WIDTH, names.records);
    let _ = write!(
        statement,
        "WITH RECURSIVE places(place) AS (SELECT 1 WHERE length(${records})>0 \
         UNION ALL SELECT place+{width} FROM places WHERE place+{width}<=length(${records})), \
         given(place,{columns}) AS (SELECT place"
    );
    R::read(names, statement);
    statement.push_str(" FROM places) ");
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqliteConnection;
    use sqlx::{AssertSqlSafe, Connection, FromRow};

    use super::*;

    type Cells = (Uuid, [u8; 3], i64, Option<i64>, String, Option<String>, Option<Uuid>);

    #[derive(Debug, PartialEq, FromRow)]
    struct Found {
        id: Uuid,
        bytes: Vec<u8>,
        number: i64,
        no_number: Option<i64>,
        text: Option<String>,
        no_text: Option<String>,
        no_id: Option<Uuid>,
    }

    async fn read_back(rows: &[Cells]) -> Vec<Found> {
        let mut connection = SqliteConnection::connect(":memory:").await.expect("a database");
        // Both statements use `$1`: what is bound goes by its number, not in turn.
        let mut statement = String::from("SELECT $1; ");
        give::<Cells>(
            "id, bytes, number, no_number, text, no_text, no_id",
            Names { records: 2, texts: 3 },
            &mut statement,
        );
        statement.push_str("SELECT * FROM given WHERE $1 = 7 ORDER BY place");
        let packed = Packed::of(rows.iter().cloned());
        assert_eq!(packed.rows, rows.len());
        let query = sqlx::query(AssertSqlSafe(statement)).bind(7).bind(packed.records).bind(packed.texts);
        let found = query.fetch_all(&mut connection).await.expect("rows");
        found.iter().skip(1).map(|row| Found::from_row(row).expect("a row")).collect()
    }

    #[tokio::test]
    async fn what_is_put_in_is_read_back() {
        let rows: [Cells; 4] = [
            (Uuid::from_u128(1), *b"abc", 0, None, String::new(), None, None),
            (
                Uuid::max(),
                [0; 3],
                i64::MIN,
                Some(i64::MAX),
                "ä\"'\\\n 1".to_owned(),
                Some(String::new()),
                Some(Uuid::nil()),
            ),
            (Uuid::nil(), [255; 3], i64::MAX, Some(0), "$1".repeat(5_000), Some("x".to_owned()), Some(Uuid::max())),
            (Uuid::from_u128(2), *b" 1 ", -1, Some(-1), " ".to_owned(), Some("€".to_owned()), None),
        ];
        let expected: Vec<Found> = rows
            .iter()
            .cloned()
            .map(|(id, bytes, number, no_number, text, no_text, no_id)| {
                let (bytes, text) = (bytes.to_vec(), Some(text));
                Found { id, bytes, number, no_number, text, no_text, no_id }
            })
            .collect();
        assert_eq!(read_back(&rows).await, expected);
        assert_eq!(read_back(&rows[..1]).await, expected[..1]);
        assert_eq!(read_back(&[]).await, []);
    }

    #[tokio::test]
    async fn texts_that_differ_behind_a_nul_differ() {
        let row = |text: &str| (Uuid::nil(), [0; 3], 0, None, text.to_owned(), None, None);
        let found = read_back(&[row("1\0a"), row("1\0b")]).await;
        let texts: Vec<&str> = found.iter().filter_map(|row| row.text.as_deref()).collect();
        assert_eq!(texts, ["1\u{fffd}a", "1\u{fffd}b"]);
    }

    #[tokio::test]
    async fn rows_come_in_their_order() {
        let rows: Vec<Cells> = (0..1_000)
            .map(|number| (Uuid::from_u128(7), [1; 3], number, None, number.to_string(), None, None))
            .collect();
        let found = read_back(&rows).await;
        assert!(found.iter().map(|row| row.number).eq(0..1_000), "as they were put in");
        assert!(found.iter().all(|row| row.text == Some(row.number.to_string())));
    }

    #[tokio::test]
    async fn a_row_may_be_a_byte() {
        let mut connection = SqliteConnection::connect(":memory:").await.expect("a database");
        let mut statement = String::new();
        give::<([u8; 1],)>("byte", Names { records: 1, texts: 2 }, &mut statement);
        statement.push_str("SELECT hex(byte) FROM given ORDER BY place");
        let query = sqlx::query_scalar(AssertSqlSafe(statement)).bind(Packed::of([(*b"a",), (*b"b",)]).records);
        let bytes: Vec<String> = query.fetch_all(&mut connection).await.expect("rows");
        assert_eq!(bytes, ["61", "62"]);
    }
}
