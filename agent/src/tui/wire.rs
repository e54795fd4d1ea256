//! What the agent answered, read without trust: a field that is missing or of another kind is as one that is not known.

use serde_json::Value;

use super::table::{Cell, Tone};
use crate::model::shown::{self, bytes};

/// An answer: a document a line, or one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Answer {
    /// The documents.
    pub(super) rows: Vec<Value>,
    /// Lines that are none.
    pub(super) unreadable: usize,
}

impl Answer {
    /// Reads lines.
    pub(super) fn read(text: &str) -> Self {
        let mut answer = Self::default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match serde_json::from_str(line) {
                Ok(row) => answer.rows.push(row),
                Err(_) => answer.unreadable += 1,
            }
        }
        answer
    }

    /// The only document of an answer; `null` where there is none.
    pub(super) fn document(&self) -> &Value {
        self.rows.first().unwrap_or(&Value::Null)
    }
}

/// A text by JSON pointer.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// A count by JSON pointer.
pub(super) fn count(value: &Value, pointer: &str) -> Option<u64> {
    value.pointer(pointer).and_then(Value::as_u64)
}

/// A number by JSON pointer.
pub(super) fn float(value: &Value, pointer: &str) -> Option<f64> {
    value.pointer(pointer).and_then(Value::as_f64).filter(|number| number.is_finite())
}

/// An array by JSON pointer.
pub(super) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// A time (RFC 3339), nanoseconds since the Unix epoch.
pub(super) fn time(value: &Value, pointer: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339(text(value, pointer)?).ok()?;
    u64::try_from(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_nanos()).ok()
}

/// A text's cell.
pub(super) fn text_cell(value: &Value, pointer: &str) -> Cell {
    text(value, pointer).filter(|text| !text.is_empty()).map_or_else(dash, Cell::text)
}

/// Where there is no text.
pub(super) fn dash() -> Cell {
    Cell::text("-").tone(Tone::Dim)
}

/// A count's cell.
pub(super) fn count_cell(value: &Value, pointer: &str) -> Cell {
    count(value, pointer).map_or_else(Cell::none, Cell::count)
}

/// Of things that should not be: coloured where there are some.
pub(super) fn bad_cell(count: u64) -> Cell {
    Cell::count(count).tone(if count > 0 { Tone::Bad } else { Tone::Dim })
}

/// Bytes.
pub(super) fn bytes_cell(count: Option<u64>) -> Cell {
    count.map_or_else(Cell::none, |count| Cell::number(count as f64, bytes(count)))
}

/// Seconds as a length of time.
pub(super) fn seconds_cell(seconds: Option<f64>) -> Cell {
    let seconds = seconds.filter(|seconds| (0.0..1e9).contains(seconds));
    seconds.map_or_else(Cell::none, |seconds| Cell::number(seconds, shown::seconds(seconds)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_json_is_counted() {
        let answer = Answer::read("{\"a\":1}\nnonsense\n\n[2]\n{\"cut\":");
        assert_eq!(answer, Answer { rows: vec![json!({"a": 1}), json!([2])], unreadable: 2 });
        assert_eq!(*Answer::read("").document(), Value::Null);
    }

    #[test]
    fn fields_of_another_kind_are_not_known() {
        let odd = json!({"calls": "many", "service": 7, "list": {}, "time": "soon", "seconds": -1.0, "big": 1e300});
        assert_eq!(count_cell(&odd, "/calls"), Cell::none());
        assert_eq!(text_cell(&odd, "/service").text, "-");
        assert_eq!(list(&odd, "/list"), [Value::Null; 0]);
        assert_eq!(time(&odd, "/time"), None);
        assert_eq!(seconds_cell(float(&odd, "/seconds")).text, "-");
        assert_eq!(seconds_cell(float(&odd, "/big")).text, "-");
        assert_eq!(seconds_cell(Some(0.001)).text, "1ms");
        assert_eq!(time(&json!(["1970-01-01T00:00:01.5Z"]), "/0"), Some(1_500_000_000));
    }
}
