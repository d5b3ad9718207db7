//! Stock and its ledger as the API shows them.

use serde_json::Value;
use storekeeper::domain::timestamp::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What is in stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level {
    /// What can be sold.
    pub(crate) quantity: i64,
    /// What is in the warehouse.
    pub(crate) on_hand: i64,
    /// What is set aside.
    pub(crate) held: i64,
}

/// A row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its number within the inventory.
    pub(crate) seq: i64,
    /// Why it was written.
    pub(crate) reason: String,
    /// What could be sold before it.
    pub(crate) last_quantity: i64,
    /// How many units it is about.
    pub(crate) units: i64,
    /// What there was after it.
    pub(crate) after: Level,
    /// When it was written.
    pub(crate) at: Timestamp,
}

impl Level {
    /// Nothing held of so much.
    pub(crate) fn free(quantity: i64) -> Self {
        Self { quantity, on_hand: quantity, held: 0 }
    }

    pub(super) fn of(document: &Value) -> Self {
        let read = Self {
            quantity: number(document, "quantity"),
            on_hand: number(document, "onHand"),
            held: number(document, "held"),
        };
        assert_eq!(read.quantity, read.on_hand - read.held, "{document:#}");
        read
    }
}

impl Row {
    pub(super) fn of(document: &Value) -> Self {
        let (quantity, on_hand) = (number(document, "newQuantity"), number(document, "onHand"));
        Self {
            seq: number(document, "seq"),
            reason: document["reason"].as_str().expect("a reason").to_owned(),
            last_quantity: number(document, "lastQuantity"),
            units: number(document, "quantityChanged"),
            after: Level { quantity, on_hand, held: number(document, "held") },
            at: timestamp(&document["createdAt"]),
        }
    }
}

/// How many rows have a reason.
pub(crate) fn count(rows: &[Row], reason: &str) -> usize {
    rows.iter().filter(|row| row.reason == reason).count()
}

/// Each row follows from the one before it, and the last one says what is in stock.
pub(super) fn assert_chain(rows: &[Row], level: Level) {
    let mut before = Level::free(0);
    for (row, seq) in rows.iter().zip(1..) {
        assert_eq!(row.seq, seq, "the rows are numbered without a gap");
        assert_eq!(row.last_quantity, before.quantity, "row {seq} begins where its predecessor ended");
        let (on_hand, held) = match row.reason.as_str() {
            "initial" | "receipt" | "order_cancelled" => (row.units, 0),
            "hold" => (0, row.units),
            "hold_released" | "hold_expired" => (0, -row.units),
            "sale" => (-row.units, -row.units),
            "adjustment" => (-row.units, 0),
            other => panic!("no test writes rows of the reason {other}"),
        };
        let (on_hand, held) = (before.on_hand + on_hand, before.held + held);
        assert_eq!(row.after, Level { quantity: on_hand - held, on_hand, held }, "row {seq}: {row:?}");
        assert!(held >= 0 && held <= on_hand, "row {seq} holds what is there: {row:?}");
        before = row.after;
    }
    assert_eq!(before, level, "the ledger ends at what is in stock");
}

#[track_caller]
fn number(document: &Value, member: &str) -> i64 {
    document[member].as_i64().unwrap_or_else(|| panic!("no number {member} in {document:#}"))
}

/// A moment as the API writes it.
#[track_caller]
pub(super) fn timestamp(text: &Value) -> Timestamp {
    let moment = text.as_str().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    let moment = moment.unwrap_or_else(|| panic!("no moment: {text}"));
    Timestamp(i64::try_from(moment.unix_timestamp_nanos() / 1_000).expect("a moment of our days"))
}
