//! The audit log's file.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::clock;
use crate::model::json::time;
use crate::policy::audit::{Broken, Entry, Head, verify};

/// Why a change can't be recorded, and so is not made.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file.
    #[error("the change can't be recorded in {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// Someone changed the file.
    #[error("the audit log {} is damaged: {broken}; move it away, then changes are recorded in a new one", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Where.
        broken: Broken,
    },
}

/// The log, opened with the first change.
pub(super) struct Log {
    path: Option<PathBuf>,
    open: Option<(File, Head)>,
}

impl Log {
    /// Nothing is opened yet.
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, open: None }
    }

    /// Records a change. Fails before it is on disk or not at all.
    pub(super) fn write(
        &mut self,
        who: &str,
        what: &str,
        rule: Option<&str>,
        why: &str,
        before: Value,
        after: Value,
    ) -> Result<(), LogError> {
        self.record(Entry {
            seq: 0,
            at: time(clock::unix_ns()),
            who: who.to_owned(),
            what: what.to_owned(),
            rule: rule.map(str::to_owned),
            why: why.to_owned(),
            before,
            after,
            prev: String::new(),
        })?;
        tracing::info!(who, what, rule, why, "drop decisions changed");
        Ok(())
    }

    fn record(&mut self, entry: Entry) -> Result<(), LogError> {
        let Some(path) = &self.path else { return Ok(()) };
        let io = |source| LogError::Io { path: path.clone(), source };
        // One that was moved away, as logrotate does, is whole; the next begins here.
        self.open.take_if(|(file, _)| !is_at(file, path));
        let (file, head) = match &mut self.open {
            Some(open) => open,
            closed => closed.insert(open(path)?),
        };
        let mut next = head.clone();
        let line = next.line(entry).map_err(|error| io(error.into()))?;
        let length = file.metadata().map_err(io)?.len();
        if let Err(error) = file.write_all(line.as_bytes()).and_then(|()| file.sync_data()) {
            // Half a line would break the chain for good.
            let _ = file.set_len(length);
            return Err(io(error));
        }
        *head = next;
        Ok(())
    }
}

/// Whether a file still has its name.
fn is_at(file: &File, path: &Path) -> bool {
    let of = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((file.metadata().map(of), fs::metadata(path).map(of)), (Ok(file), Ok(named)) if file == named)
}

fn open(path: &Path) -> Result<(File, Head), LogError> {
    let io = |source| LogError::Io { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(io)?;
    }
    let mut file = File::options().read(true).append(true).create(true).mode(0o640).open(path).map_err(io)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(io)?;
    let head = verify(&text).map_err(|broken| LogError::Broken { path: path.to_owned(), broken })?;
    Ok((file, head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_was_moved_away_is_whole_and_the_next_begins() {
        let folder = std::env::temp_dir().join(format!("weir-audit-{}", std::process::id()));
        let (path, moved) = (folder.join("audit.log"), folder.join("audit.log.1"));
        let mut log = Log::new(Some(path.clone()));
        let mut add = |id| log.write("test", "add", Some(id), "", Value::Null, Value::Null).unwrap();
        add("a");
        add("b");
        fs::rename(&path, &moved).unwrap();
        add("c");
        let lines = |path: &Path| verify(&fs::read_to_string(path).unwrap()).unwrap().lines;
        assert_eq!((lines(&moved), lines(&path)), (2, 1));
        fs::remove_dir_all(folder).unwrap();
    }
}
