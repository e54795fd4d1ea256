//! Lists of addresses as others publish them: plain text, CSV or JSON. They are taken for hostile: what is no address is
//! counted and left out, what can't be meant refuses the whole.

use std::fmt;

use super::prefix::{Prefix, joined};

pub mod decisions;
mod json;

/// Entries from which on a list may not shrink by more than half at once.
pub const FEW: usize = 16;

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An address or CIDR a line; `#` and `;` begin comments.
    Text,
    /// The first column that has an address in the first or second row; `#` begins comments.
    Csv,
    /// An array of texts, or of objects with `ip`, `address`, `cidr`, `range` or `value`; or `{"data": [...]}`.
    Json,
}

/// Why a list is refused whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// No such document.
    #[error("not JSON of the expected shape: {0}")]
    Json(String),
    /// Too many entries are no addresses.
    #[error("{bad} of {all} entries are not addresses, first {first}")]
    Unparsable {
        /// Entries that are none.
        bad: usize,
        /// All entries.
        all: usize,
        /// Where, and what is wrong.
        first: Box<str>,
    },
    /// Too many entries.
    #[error("more than {0} entries: raise max, or take a shorter list")]
    Long(usize),
    /// Nothing is left.
    #[error("it has no address")]
    Empty,
    /// Less than half is left.
    #[error("it shrank from {before} to {now} entries at once")]
    Shrunk {
        /// Entries of the list in force.
        before: usize,
        /// Its entries.
        now: usize,
    },
    /// Nobody can mean that.
    #[error("{0} holds more addresses than a list can mean")]
    Wide(Prefix),
}

impl ListError {
    /// One word for a metric.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Json(_) | Self::Unparsable { .. } => "unparsable",
            Self::Long(_) => "too_large",
            Self::Empty => "empty",
            Self::Shrunk { .. } => "shrunk",
            Self::Wide(_) => "too_wide",
        }
    }
}

/// A list as read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Addresses, as they came.
    pub prefixes: Vec<Prefix>,
    /// Entries that are no addresses.
    pub bad: usize,
    /// The first of them.
    pub first: Option<Box<str>>,
    max: usize,
}

/// A list that can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Disjoint, neighbours joined, sorted.
    pub prefixes: Vec<Prefix>,
    /// Different entries that they came from.
    pub entries: usize,
    /// Entries that were left out because they would hit who must not be met.
    pub saved: usize,
    /// The first of them, and whom it would hit.
    pub first: Option<(Prefix, Box<str>)>,
}

impl Entries {
    /// None yet, and at most `max`.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    /// Takes an entry; `place` tells where it is.
    fn take(&mut self, place: &dyn fmt::Display, text: &str) -> Result<(), ListError> {
        match text.parse() {
            Ok(_) if self.prefixes.len() >= self.max => return Err(ListError::Long(self.max)),
            Ok(prefix) => self.prefixes.push(prefix),
            Err(error) => self.refuse(place, &error),
        }
        Ok(())
    }

    fn refuse(&mut self, place: &dyn fmt::Display, why: &dyn fmt::Display) {
        self.bad += 1;
        if self.first.is_none() {
            // Control characters of a hostile list stay out of logs and terminals.
            let told: String = format!("at {place}: {why}").chars().filter(|c| !c.is_control()).take(200).collect();
            self.first = Some(told.into());
        }
    }

    /// Judges the list. `before`: entries of the one in force. `saves`: whom an entry would hit that must not be met.
    pub fn judge(self, before: Option<usize>, saves: impl Fn(&Prefix) -> Option<Box<str>>) -> Result<List, ListError> {
        let Self { mut prefixes, bad, first, .. } = self;
        let all = bad + prefixes.len();
        if bad * 10 > all {
            return Err(ListError::Unparsable { bad, all, first: first.unwrap_or_default() });
        }
        prefixes.sort_unstable();
        prefixes.dedup();
        if let Some(wide) = prefixes.iter().find(|prefix| prefix.is_too_wide()) {
            return Err(ListError::Wide(*wide));
        }
        let entries = prefixes.len();
        if entries == 0 {
            return Err(ListError::Empty);
        }
        if let Some(before) = before.filter(|before| *before >= FEW && entries * 2 < *before) {
            return Err(ListError::Shrunk { before, now: entries });
        }
        let mut list = List { entries, ..List::default() };
        prefixes.retain(|prefix| {
            let Some(what) = saves(prefix) else { return true };
            list.saved += 1;
            list.first.get_or_insert((*prefix, what));
            false
        });
        list.prefixes = joined(prefixes);
        // Half of all addresses may hide in many short ones.
        match list.prefixes.iter().find(|prefix| prefix.is_too_wide()) {
            Some(wide) => Err(ListError::Wide(*wide)),
            None if list.prefixes.is_empty() => Err(ListError::Empty),
            None => Ok(list),
        }
    }
}

/// Reads a list of at most `max` entries; without a format it is guessed.
pub fn read(bytes: &[u8], format: Option<Format>, max: usize) -> Result<Entries, ListError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut entries = Entries::new(max);
    match format.unwrap_or_else(|| guess(bytes)) {
        Format::Text => text(bytes, &mut entries)?,
        Format::Csv => csv(bytes, &mut entries)?,
        Format::Json => json::read(bytes, &mut entries)?,
    }
    Ok(entries)
}

fn guess(bytes: &[u8]) -> Format {
    match bytes.trim_ascii_start().first() {
        Some(b'[' | b'{') => return Format::Json,
        None => return Format::Text,
        Some(_) => {}
    }
    let lines = bytes.split(|byte| *byte == b'\n').map(|line| uncommented(line).trim_ascii());
    match lines.filter(|line| !line.is_empty()).take(1).next() {
        Some(line) if line.contains(&b',') => Format::Csv,
        _ => Format::Text,
    }
}

fn uncommented(line: &[u8]) -> &[u8] {
    line.split(|byte| matches!(byte, b'#' | b';')).next().unwrap_or_default()
}

fn text(bytes: &[u8], entries: &mut Entries) -> Result<(), ListError> {
    for (n, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = uncommented(line).trim_ascii();
        if !line.is_empty() {
            entries.take(&Line(n as u64 + 1), &String::from_utf8_lossy(line))?;
        }
    }
    Ok(())
}

fn csv(bytes: &[u8], entries: &mut Entries) -> Result<(), ListError> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .comment(Some(b'#'))
        .trim(csv::Trim::All)
        .from_reader(bytes);
    let (mut row, mut column) = (csv::ByteRecord::new(), None);
    let is_address = |field: &[u8]| std::str::from_utf8(field).is_ok_and(|text| text.parse::<Prefix>().is_ok());
    let mut n = 0_u64;
    while reader.read_byte_record(&mut row).unwrap_or(false) {
        n += 1;
        let line = Line(row.position().map_or(n, csv::Position::line));
        column = column.or_else(|| row.iter().position(is_address));
        match column.map(|column| row.get(column)) {
            Some(Some(field)) => entries.take(&line, &String::from_utf8_lossy(field))?,
            Some(None) => entries.refuse(&line, &"the row is too short"),
            // A header.
            None if n == 1 => {}
            None => entries.refuse(&line, &"no column has an address"),
        }
    }
    Ok(())
}

struct Line(u64);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.0)
    }
}

#[cfg(test)]
mod tests;
