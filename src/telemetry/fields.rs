//! The fields of spans, in the log as JSON.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::span::Record;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, FormattedFields};

/// Writes a span's fields as a JSON object, as they come. What `tracing_subscriber` has for it sorts them into a map first, and
/// every request has a span, whether it logs anything or not.
#[derive(Debug)]
pub(super) struct JsonObject;

impl<'writer> FormatFields<'writer> for JsonObject {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut members = Members { writer, before: "{", written: Ok(()) };
        fields.record(&mut members);
        members.end()
    }

    /// A field that is told again is there twice, of which the reader of the object, the line that is logged, takes the last.
    fn add_fields(&self, current: &'writer mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        current.fields.truncate(current.fields.len().saturating_sub("}".len()));
        let before = if current.fields.len() > "{".len() { "," } else { "" };
        let mut members = Members { writer: current.as_writer(), before, written: Ok(()) };
        fields.record(&mut members);
        members.end()
    }
}

/// The members of an object that is being written.
struct Members<'writer> {
    writer: Writer<'writer>,
    /// What stands before the next one.
    before: &'static str,
    written: fmt::Result,
}

impl Members<'_> {
    fn member(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        let before = std::mem::replace(&mut self.before, ",");
        self.written = self.written.and_then(|()| {
            self.writer.write_str(before)?;
            string(&mut self.writer, field.name())?;
            self.writer.write_char(':')?;
            value(&mut self.writer)
        });
    }

    fn end(mut self) -> fmt::Result {
        self.written?;
        // Nothing came: the object has not begun.
        if self.before == "{" {
            self.writer.write_char('{')?;
        }
        self.writer.write_char('}')
    }
}

impl Visit for Members<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, |writer| string(writer, value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, |writer| write!(writer, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, |writer| write!(writer, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, |writer| write!(writer, "{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // One that is no number is null, as serde_json has it.
        self.member(field, |writer| write!(writer, "{}", serde_json::Value::from(value)));
    }
}

/// Writes a JSON string; most have nothing in them that is written otherwise.
fn string(writer: &mut Writer<'_>, text: &str) -> fmt::Result {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        return write!(writer, "{}", serde_json::Value::from(text));
    }
    writer.write_char('"')?;
    writer.write_str(text)?;
    writer.write_char('"')
}
