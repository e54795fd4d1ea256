//! Lines of the control socket as rows of a table.

use serde_json::Value;

use crate::control::client::Error;

/// Reads each line as a document and makes a row of it, sorted.
pub(super) fn read(
    lines: impl Iterator<Item = Result<String, Error>>,
    row: impl Fn(&Value) -> Vec<String>,
) -> anyhow::Result<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    for line in lines {
        rows.push(row(&serde_json::from_str(&line?)?));
    }
    rows.sort();
    Ok(rows)
}
