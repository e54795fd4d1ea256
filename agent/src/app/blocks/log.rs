//! The audit log's file.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::clock;
use crate::model::json::time;
use crate::policy::audit::{Broken, Entry, Head, hash, verify};

/// Why a change can't be recorded, and so is not made. Several changes may have it in common.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// The file.
    #[error("the change can't be recorded in {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: Arc<io::Error>,
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
    noted: Vec<Entry>,
}

impl Log {
    /// Nothing is opened yet.
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, open: None, noted: Vec::new() }
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
        self.note(who, what, rule, why, before, after);
        self.sync()
    }

    /// Notes a change for the next [`Self::sync`]. Until then it is not recorded.
    pub(super) fn note(&mut self, who: &str, what: &str, rule: Option<&str>, why: &str, before: Value, after: Value) {
        self.noted.push(Entry {
            seq: 0,
            at: time(clock::unix_ns()),
            who: who.to_owned(),
            what: what.to_owned(),
            rule: rule.map(str::to_owned),
            why: why.to_owned(),
            before,
            after,
            prev: String::new(),
        });
    }

    /// Records what was noted, in its order: all of it is on disk then, or nothing of it and it is forgotten.
    pub(super) fn sync(&mut self) -> Result<(), LogError> {
        let noted = std::mem::take(&mut self.noted);
        if noted.is_empty() {
            return Ok(());
        }
        self.record(&noted)?;
        for Entry { who, what, rule, why, .. } in noted {
            tracing::info!(who, what, rule, why, "drop decisions changed");
        }
        Ok(())
    }

    fn record(&mut self, entries: &[Entry]) -> Result<(), LogError> {
        let Some(path) = &self.path else { return Ok(()) };
        let io = |source| failed(path, source);
        // One that was moved away, as logrotate does, is whole; the next begins here.
        self.open.take_if(|(file, _)| !is_at(file, path));
        let (file, head) = match &mut self.open {
            Some(open) => open,
            closed => closed.insert(open(path)?),
        };
        let (mut next, mut lines) = (head.clone(), String::new());
        for entry in entries {
            lines += &next.line(entry.clone()).map_err(|error| io(error.into()))?;
        }
        let length = file.metadata().map_err(io)?.len();
        if let Err(error) = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data()) {
            // Half a line would break the chain for good.
            if file.set_len(length).is_err() {
                self.open = None;
            }
            return Err(io(error));
        }
        *head = next;
        Ok(())
    }
}

fn failed(path: &Path, source: io::Error) -> LogError {
    LogError::Io { path: path.to_owned(), source: Arc::new(source) }
}

/// Whether a file still has its name.
fn is_at(file: &File, path: &Path) -> bool {
    let of = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((file.metadata().map(of), fs::metadata(path).map(of)), (Ok(file), Ok(named)) if file == named)
}

fn open(path: &Path) -> Result<(File, Head), LogError> {
    let io = |source| failed(path, source);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(io)?;
    }
    let mut file = File::options().read(true).append(true).create(true).mode(0o640).open(path).map_err(io)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(io)?;
    let broken = |broken| LogError::Broken { path: path.to_owned(), broken };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let (lines, rest) = bytes.split_at(whole);
    let mut head = verify(&String::from_utf8_lossy(lines)).map_err(broken)?;
    if !rest.is_empty() {
        cut(&mut file, &mut head, whole as u64, rest).map_err(io)?;
    }
    Ok((file, head))
}

/// Takes away a line without an end: who wrote it was killed, or lost power, before it was on disk, and so before anybody
/// was told that its change was made. The line in its place says so, and what was there.
fn cut(file: &mut File, head: &mut Head, whole: u64, rest: &[u8]) -> io::Result<()> {
    let text = format!(
        "the last line had no end, as one has whose writer was killed: its {} bytes (SHA-256 {}) are taken away",
        rest.len(),
        hash(rest)
    );
    let entry = Entry {
        seq: 0,
        at: time(clock::unix_ns()),
        who: "weir".to_owned(),
        what: "cut".to_owned(),
        rule: None,
        why: text,
        before: Value::Null,
        after: Value::Null,
        prev: String::new(),
    };
    let line = head.line(entry)?;
    file.set_len(whole)?;
    file.write_all(line.as_bytes())?;
    file.sync_data()?;
    tracing::warn!(bytes = rest.len(), "the audit log's last line had no end and was taken away");
    Ok(())
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

    #[test]
    fn what_is_noted_is_recorded_in_its_order_at_once_or_not_at_all() {
        let folder = std::env::temp_dir().join(format!("weir-audit-noted-{}", std::process::id()));
        let path = folder.join("audit.log");
        let mut log = Log::new(Some(path.clone()));
        let note = |log: &mut Log, id| log.note("test", "add", Some(id), "", Value::Null, Value::Null);
        note(&mut log, "a");
        note(&mut log, "b");
        assert!(!path.exists());
        log.sync().unwrap();
        note(&mut log, "c");
        let (full, open) = (Path::new("/dev/full").to_owned(), log.open.take().unwrap());
        // The chain as it is, on a device that takes nothing.
        log.path = Some(full.clone());
        log.open = Some((File::options().append(true).open(full).unwrap(), open.1.clone()));
        log.sync().unwrap_err();
        (log.path, log.open) = (Some(path.clone()), Some(open));
        note(&mut log, "d");
        log.sync().unwrap();
        log.sync().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let rules: Vec<Entry> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let rules: Vec<_> = rules.iter().filter_map(|entry| entry.rule.as_deref()).collect();
        assert_eq!((rules.as_slice(), verify(&text).unwrap().lines), (&["a", "b", "d"][..], 3));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_line_that_was_not_finished_is_taken_away_and_one_that_was_altered_is_not() {
        let folder = std::env::temp_dir().join(format!("weir-audit-cut-{}", std::process::id()));
        let path = folder.join("audit.log");
        let add = |id| Log::new(Some(path.clone())).write("test", "add", Some(id), "ä", Value::Null, Value::Null);
        add("a").unwrap();
        add("b").unwrap();
        let text = fs::read(&path).unwrap();
        let first = text.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for end in first + 1..text.len() {
            fs::write(&path, &text[..end]).unwrap();
            add("c").unwrap();
            let now = fs::read_to_string(&path).unwrap();
            assert_eq!(verify(&now).unwrap().lines, 3, "cut at {end}");
            let said: Entry = serde_json::from_str(now.lines().nth(1).unwrap()).unwrap();
            assert!(said.what == "cut" && said.why.contains(&hash(&text[first..end])), "{said:?}");
        }
        let altered: Vec<u8> = text.iter().map(|byte| if *byte == b'b' { b'x' } else { *byte }).collect();
        fs::write(&path, &altered).unwrap();
        assert!(matches!(add("c"), Err(LogError::Broken { .. })));
        assert_eq!(fs::read(&path).unwrap(), altered);
        fs::remove_dir_all(folder).unwrap();
    }
}
