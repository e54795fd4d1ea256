//! The folder of rules. A set of files is taken whole or refused whole.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::board::Good;
use super::watch::Watch;
use super::{DIRECTORY, Desk, Trouble};
use crate::app::blocks::sources::Files;
use crate::config::{Problems, RulesFile};

/// How often it is looked at without notice.
const LOOK: Duration = Duration::from_secs(10);
/// Files that are read at most.
const FILES: usize = 1000;
/// Bytes of all of them.
const BYTES: u64 = 16 << 20;
/// A file that changed less than this ago may still be written.
const YOUNG: Duration = Duration::from_millis(100);
/// Tries to read a set of files that does not change meanwhile.
const TRIES: usize = 10;

type Texts = BTreeMap<PathBuf, Vec<u8>>;

/// Follows the folder until it is aborted.
pub(super) async fn run(folder: PathBuf, desk: Desk) {
    let watch = Watch::new();
    let taken = Arc::new(Mutex::new(Files::new()));
    let mut last: Option<Arc<(Texts, Vec<RulesFile>)>> = None;
    loop {
        watch.on(&folder);
        let (of, before, taken) = (folder.clone(), last.clone(), Arc::clone(&taken));
        let looked = desk.aside(move |blocks, alive| {
            let texts = read(&of)?;
            let now = if let Some(same) = before.filter(|before| before.0 == texts) {
                same
            } else {
                let files = parse(&texts)?;
                Arc::new((texts, files))
            };
            let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
            let rules = blocks.take_files(&now.1, &mut taken, alive)?;
            Ok((now, rules))
        });
        match looked.await {
            Ok((now, rules)) => {
                desk.board.good(DIRECTORY, &Good { rules, entries: rules, ..Good::default() });
                last = Some(now);
            }
            // Tried again with each look: what it contradicted may be gone.
            Err(trouble) => {
                desk.board.failed(DIRECTORY, &trouble);
                last = None;
            }
        }
        watch.changed(LOOK).await;
    }
}

fn parse(texts: &Texts) -> Result<Vec<RulesFile>, Trouble> {
    let mut problems = Vec::new();
    let mut files = Vec::with_capacity(texts.len());
    for (path, text) in texts {
        match RulesFile::read(path, text) {
            Ok(file) => files.push(file),
            Err(found) => problems.extend(found.0),
        }
    }
    if problems.is_empty() { Ok(files) } else { Err(Trouble::new("unparsable", Problems(problems).to_string())) }
}

/// Reads all files, as they were at one moment.
fn read(folder: &Path) -> Result<Texts, Trouble> {
    for _ in 0..TRIES {
        let (before, young) = look(folder)?;
        if young {
            std::thread::sleep(YOUNG);
            continue;
        }
        let mut texts = Texts::new();
        for path in before.keys() {
            match content(path) {
                Ok(bytes) => drop(texts.insert(path.clone(), bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Trouble::new("unreadable", format!("{}: {error}", path.display()))),
            }
        }
        if look(folder)?.0 == before {
            return Ok(texts);
        }
    }
    Err(Trouble::new("unsettled", format!("{}: its files keep changing", folder.display())))
}

/// What tells versions of a file apart.
type Version = (u64, u64, u64, i64, i64);

/// The files of rules, links followed, and whether one may still be written.
fn look(folder: &Path) -> Result<(BTreeMap<PathBuf, Version>, bool), Trouble> {
    let wrong = |error: io::Error| Trouble::new("unreadable", format!("{}: {error}", folder.display()));
    let (mut found, mut bytes, mut young) = (BTreeMap::new(), 0, false);
    for entry in fs::read_dir(folder).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let named = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if hidden || !named {
            continue;
        }
        // A link into nowhere is no file.
        let Ok(data) = fs::metadata(&path) else { continue };
        if !data.is_file() {
            continue;
        }
        if !is_ours(&data) {
            let text = format!("{}: others may change it; it must be root's or the agent's own", path.display());
            return Err(Trouble::new("unsafe", text));
        }
        bytes += data.len();
        young |= is_young(&data);
        found.insert(path, (data.dev(), data.ino(), data.len(), data.mtime(), data.mtime_nsec()));
    }
    if found.len() > FILES || bytes > BYTES {
        let text = format!("{}: more than {FILES} files or {} MiB", folder.display(), BYTES >> 20);
        return Err(Trouble::new("too_large", text));
    }
    Ok((found, young))
}

/// Only root and the agent's own account can have written it. The folder may be open to all, as a ConfigMap's is.
pub(super) fn is_ours(data: &Metadata) -> bool {
    // SAFETY: no arguments, and it can't fail.
    let own = unsafe { libc::geteuid() };
    (data.uid() == 0 || data.uid() == own) && data.mode() & 0o002 == 0
}

fn is_young(data: &Metadata) -> bool {
    let age = data.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
    // One of the future says nothing.
    age.is_some_and(|age| age < YOUNG)
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
