//! Data on stdout.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;

/// What fails where a disk is full.
const WRITING: &str = "writing to stdout";

/// Whether an error is nothing but a reader that has seen enough (`weir calls | head`).
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes text to stdout.
pub(super) fn text(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context(WRITING)
}

/// Writes a line about what is done to stderr. Where that can't be written either, nobody is left to be told.
pub(super) fn said(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes a JSON document: indented on a terminal, one line otherwise.
pub(super) fn document(value: &serde_json::Value) -> anyhow::Result<()> {
    let text_of = if io::stdout().is_terminal() { serde_json::to_string_pretty } else { serde_json::to_string };
    text(&(text_of(value)? + "\n"))
}

/// Writes lines as they come.
pub(super) fn lines(lines: impl Iterator<Item = Result<String, crate::control::client::Error>>) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in lines {
        writeln!(out, "{}", line?).context(WRITING)?;
    }
    out.flush().context(WRITING)
}
