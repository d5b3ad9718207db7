//! A statement of many parts, put together part by part: one for each table that is written or locked. Each takes its rows
//! as arrays, one a column, and what all of them say alike as a single value: a server takes an array apart at a price.

use sqlx::{Encode, Postgres, QueryBuilder, Type};

/// The statement as far as it is put together.
pub(super) struct Writing {
    pub(super) query: QueryBuilder<Postgres>,
    pub(super) empty: bool,
    /// The parts whose rows are counted, and how many there are to be.
    pub(super) counted: Vec<(&'static str, usize)>,
    first_column: bool,
}

impl Writing {
    /// A statement with nothing in it.
    pub(super) fn new() -> Self {
        Self { query: QueryBuilder::new(""), empty: true, counted: Vec::new(), first_column: true }
    }

    /// Adds a part that inserts `rows` rows: `before`, the columns that `columns` adds, `after`. It inserts all of them
    /// or fails, so nobody counts them.
    pub(super) fn insert(
        &mut self,
        name: &'static str,
        rows: usize,
        before: &'static str,
        after: &'static str,
        columns: impl FnOnce(&mut Self),
    ) {
        self.part(name, rows, before, (after, ""), columns);
    }

    /// Adds a part that changes `rows` rows, if they are as they were seen.
    pub(super) fn change(
        &mut self,
        name: &'static str,
        rows: usize,
        before: &'static str,
        after: &'static str,
        columns: impl FnOnce(&mut Self),
    ) {
        self.part(name, rows, before, (after, " RETURNING 1"), columns);
        self.count(name, rows);
    }

    /// Adds a part that locks the `rows` rows that `columns` says, in the order of their keys.
    pub(super) fn lock(
        &mut self,
        name: &'static str,
        rows: usize,
        before: &'static str,
        after: &'static str,
        columns: impl FnOnce(&mut Self),
    ) {
        self.part(name, rows, before, (after, ""), columns);
        self.count(name, rows);
    }

    fn part(
        &mut self,
        name: &'static str,
        rows: usize,
        before: &'static str,
        (after, end): (&'static str, &'static str),
        columns: impl FnOnce(&mut Self),
    ) {
        if rows == 0 {
            return;
        }
        self.query.push(if std::mem::replace(&mut self.empty, false) { "WITH " } else { ", " });
        self.query.push(name).push(" AS MATERIALIZED (").push(before);
        self.first_column = true;
        columns(self);
        self.query.push(after).push(end).push(")");
    }

    fn count(&mut self, name: &'static str, rows: usize) {
        if rows > 0 {
            self.counted.push((name, rows));
        }
    }

    /// Adds a column of the part's rows, to a list of what is selected. (Rows of arrays in a `FROM` would be put away column by
    /// column before the first of them is used.)
    pub(super) fn column<'t, T: 't>(&mut self, values: impl Iterator<Item = T>) -> &mut Self
    where
        Vec<T>: Encode<'t, Postgres> + Type<Postgres>,
    {
        self.query.push(if std::mem::replace(&mut self.first_column, false) { "unnest(" } else { ", unnest(" });
        self.array(values);
        self.query.push(")");
        self
    }

    /// Adds a column as a single value, that of its first row, if the rows are `alike`. To be asked of several columns of a part
    /// together, so that there are few different statements.
    pub(super) fn column_of<'t, T>(&mut self, alike: bool, mut values: impl Iterator<Item = T>) -> &mut Self
    where
        T: Encode<'t, Postgres> + Type<Postgres> + 't,
        Vec<T>: Encode<'t, Postgres> + Type<Postgres>,
    {
        match alike.then(|| values.next()).flatten() {
            Some(value) => self.same(value),
            None => self.column(values),
        }
    }

    /// Adds values as one array.
    pub(super) fn array<'t, T: 't>(&mut self, values: impl Iterator<Item = T>)
    where
        Vec<T>: Encode<'t, Postgres> + Type<Postgres>,
    {
        self.query.push_bind(values.collect::<Vec<T>>());
    }

    /// Adds a column whose rows all say the same. How many rows there are another column says.
    pub(super) fn same<'t, T>(&mut self, value: T) -> &mut Self
    where
        T: Encode<'t, Postgres> + Type<Postgres> + 't,
    {
        if !std::mem::replace(&mut self.first_column, false) {
            self.query.push(", ");
        }
        self.query.push_bind(value);
        self
    }
}

/// Whether all rows say the same.
pub(super) fn are_alike<T: PartialEq>(mut rows: impl Iterator<Item = T>) -> bool {
    rows.next().is_none_or(|first| rows.all(|row| row == first))
}
