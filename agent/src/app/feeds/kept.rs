//! The last good list of each feed, kept over a restart: with a feed that does not answer then, nobody is let in whom it
//! had named. A file each, `feeds/NAME.list` of the state folder: a line about it, then a prefix a line, with its own end
//! where it has one. When the list was last good is the file's time of change.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::directory::is_ours;
use crate::app::whole;
use crate::clock;
use crate::config::Feed;
use crate::policy::prefix::Prefix;

/// Bytes of a file at most: some 500 000 prefixes.
const BYTES: u64 = 32 << 20;
/// How the files are written.
const VERSION: u32 = 1;

/// A list that was good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// Disjoint and sorted.
    pub(super) clients: Vec<Prefix>,
    /// Ends of each, `CLOCK_MONOTONIC` nanoseconds, 0: the rule's own; or empty.
    pub(super) ends: Vec<u64>,
    /// Entries that it had, and of these that were left out.
    pub(super) entries: usize,
    pub(super) left_out: usize,
}

/// What the first line says.
#[derive(Debug, Deserialize, Serialize)]
struct Front {
    version: u32,
    /// Hash of where it came from: another feed of this name is another list.
    origin: String,
    entries: usize,
    left_out: usize,
    /// Hash of the lines that follow.
    sha256: String,
}

/// The folder; without one nothing is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    folder: Option<PathBuf>,
    /// That it can't be written was said.
    warned: Arc<AtomicBool>,
}

impl Shelf {
    /// In this state folder.
    pub(super) fn of(state: Option<&Path>) -> Self {
        Self { folder: state.map(|state| state.join("feeds")), warned: Arc::default() }
    }

    fn file(&self, feed: &Feed) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{}.list", feed.name)))
    }

    /// Keeps a list that is good now.
    pub(super) fn keep(&self, feed: &Feed, kept: &Kept) {
        let Some(path) = self.file(feed) else { return };
        let body = lines(kept, clock::monotonic_ns(), clock::unix_ns());
        let front = Front {
            version: VERSION,
            origin: hash(format!("{:?} {:?}", feed.origin, feed.format).as_bytes()),
            entries: kept.entries,
            left_out: kept.left_out,
            sha256: hash(body.as_bytes()),
        };
        let text = serde_json::to_string(&front).map(|front| format!("{front}\n{body}"));
        self.say(&path, text.map_err(Into::into).and_then(|text| whole::write(&path, text.as_bytes())));
    }

    /// The list that is kept is good now, too.
    pub(super) fn still(&self, feed: &Feed) {
        let Some(path) = self.file(feed) else { return };
        let touch = || OpenOptions::new().write(true).open(&path)?.set_modified(SystemTime::now());
        self.say(&path, touch());
    }

    fn say(&self, path: &Path, result: std::io::Result<()>) {
        match result {
            Ok(()) => self.warned.store(false, Ordering::Relaxed),
            Err(error) if !self.warned.swap(true, Ordering::Relaxed) => {
                let file = path.display();
                tracing::warn!(%error, %file, "the last good list of a feed is not kept over a restart; see enforce.state");
            }
            Err(_) => {}
        }
    }

    /// The list that is kept, and how old it is; `None`: there is none of this feed. The error says why it is not used.
    pub(super) fn find(&self, feed: &Feed) -> Result<Option<(Kept, Duration)>, String> {
        let Some(path) = self.file(feed) else { return Ok(None) };
        let told = |why: &str| format!("{}: {why}: it is not used", path.display());
        let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(told(&error.to_string())),
        };
        let data = file.metadata().map_err(|error| told(&error.to_string()))?;
        if !data.is_file() || !is_ours(&data) {
            return Err(told("others may change it; it must be root's or the agent's own"));
        }
        let mut text = String::new();
        let read = file.take(BYTES + 1).read_to_string(&mut text);
        read.map_err(|error| told(&error.to_string()))?;
        if text.len() as u64 > BYTES {
            return Err(told("more than 32 MiB"));
        }
        let changed = data.modified().map_err(|error| told(&error.to_string()))?;
        let kept = parse(&text, feed).map_err(|why| told(&why))?;
        // One of the future is as old as can be told.
        Ok(kept.map(|kept| (kept, SystemTime::now().duration_since(changed).unwrap_or_default())))
    }
}

fn lines(kept: &Kept, monotonic_ns: u64, unix_ns: u64) -> String {
    let mut out = String::with_capacity(kept.clients.len() * 20);
    for (n, client) in kept.clients.iter().enumerate() {
        match kept.ends.get(n).copied().unwrap_or_default() {
            0 => drop(writeln!(out, "{client}")),
            end => drop(writeln!(out, "{client} {}", unix_ns.saturating_add(end).saturating_sub(monotonic_ns))),
        }
    }
    out
}

fn parse(text: &str, feed: &Feed) -> Result<Option<Kept>, String> {
    let (front, body) = text.split_once('\n').ok_or("it has no first line")?;
    let front: Front = serde_json::from_str(front).map_err(|error| format!("its first line: {error}"))?;
    if front.version != VERSION {
        return Err(format!("it is of version {}", front.version));
    }
    if hash(body.as_bytes()) != front.sha256 {
        return Err("it is damaged: its lines are not those that were written".to_owned());
    }
    if hash(format!("{:?} {:?}", feed.origin, feed.format).as_bytes()) != front.origin {
        return Ok(None);
    }
    let (monotonic_ns, unix_ns) = (clock::monotonic_ns(), clock::unix_ns());
    let mut kept = Kept { entries: front.entries, left_out: front.left_out, ..Kept::default() };
    for (n, line) in body.lines().enumerate() {
        let wrong = || format!("line {}: {line:?} is no prefix", n + 2);
        let (prefix, end) = line.split_once(' ').unwrap_or((line, "0"));
        let end: u64 = end.parse().map_err(|_| wrong())?;
        if end != 0 && end <= unix_ns {
            // It ended meanwhile.
            continue;
        }
        kept.clients.push(prefix.parse().map_err(|_| wrong())?);
        kept.ends.push(if end == 0 { 0 } else { (end - unix_ns).saturating_add(monotonic_ns) });
        if kept.clients.len() > feed.max {
            return Err(format!("it has more than {} entries", feed.max));
        }
    }
    if kept.ends.iter().all(|end| *end == 0) {
        kept.ends.clear();
    }
    Ok(Some(kept))
}

fn hash(bytes: &[u8]) -> String {
    let hash = digest(&SHA256, bytes);
    hash.as_ref().iter().fold(String::with_capacity(64), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;
    use crate::config::Origin;
    use crate::policy::written::WrittenRule;

    fn feed(name: &str, url: &str) -> Feed {
        Feed {
            name: name.to_owned(),
            origin: Origin::Url(url.to_owned()),
            format: None,
            refresh: Duration::from_mins(1),
            max: 3,
            rule: WrittenRule::default(),
        }
    }

    fn kept(clients: &[&str], ends: &[u64]) -> Kept {
        let clients: Vec<Prefix> = clients.iter().map(|text| text.parse().unwrap()).collect();
        Kept { entries: clients.len(), clients, ends: ends.to_vec(), left_out: 1 }
    }

    #[test]
    fn what_is_kept_is_found_again_and_nothing_else_is() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = std::env::temp_dir().join(format!("weir-kept-{}", std::process::id()));
        let shelf = Shelf::of(Some(&folder));
        let (one, other) = (feed("one", "http://a/"), feed("one", "http://b/"));
        assert_eq!(shelf.find(&one), Ok(None));
        let list = kept(&["192.0.2.0/24", "2001:db8::/32"], &[]);
        shelf.keep(&one, &list);
        let (found, age) = shelf.find(&one).unwrap().unwrap();
        assert_eq!(found, list);
        assert!(age < Duration::from_mins(1), "{age:?}");
        assert_eq!(shelf.find(&other), Ok(None), "it came from elsewhere");
        let path = folder.join("feeds/one.list");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // As old as the file says.
        let hour = Duration::from_hours(1);
        File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now() - hour).unwrap();
        assert!(shelf.find(&one).unwrap().unwrap().1 >= hour);
        shelf.still(&one);
        assert!(shelf.find(&one).unwrap().unwrap().1 < hour);
        // Ends are of the wall clock, and what is over is left out.
        let now = clock::monotonic_ns();
        shelf.keep(&one, &kept(&["192.0.2.1", "192.0.2.2", "192.0.2.3"], &[now + 60_000_000_000, 1, 0]));
        let (found, _) = shelf.find(&one).unwrap().unwrap();
        assert_eq!(found.clients, kept(&["192.0.2.1", "192.0.2.3"], &[]).clients);
        assert!(found.ends[0].abs_diff(now + 60_000_000_000) < 1_000_000_000 && found.ends[1] == 0);

        // Damaged, too long, not ours, a link, not of this kind.
        let good = fs::read_to_string(&path).unwrap();
        let is = |text: &str, why: &str| {
            fs::write(&path, text).unwrap();
            let said = shelf.find(&one).unwrap_err();
            assert!(said.contains(why) && said.contains("one.list"), "{said}");
        };
        is(&good.replace("192.0.2.1", "192.0.2.9"), "damaged");
        is(&good[..good.len() - 5], "damaged");
        is("", "no first line");
        is("192.0.2.1\n", "its first line");
        is(&good.replace("\"version\":1", "\"version\":2"), "version 2");
        fs::write(&path, [0xff, 0xfe, b'\n']).unwrap();
        assert!(shelf.find(&one).is_err());
        shelf.keep(&one, &kept(&["192.0.2.1", "192.0.2.3", "192.0.2.5", "192.0.2.7"], &[]));
        assert!(shelf.find(&one).unwrap_err().contains("more than 3 entries"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(shelf.find(&one).unwrap_err().contains("others may change it"));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(shelf.find(&one).is_err());
        // A link is put away, not followed.
        shelf.keep(&one, &list);
        assert_eq!(shelf.find(&one).unwrap().unwrap().0, list);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(Shelf::of(None).find(&one), Ok(None));
    }
}
