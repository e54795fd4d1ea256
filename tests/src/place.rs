//! Where things are: programs, the cache of set-up, folders of one test, free ports.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

/// Folder that `cargo xtask setup --for test` fills: Python environment, Node modules, Collector, built peers.
pub fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => {
            PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache")
        }
    };
    Ok(base.join("weir-ci"))
}

/// This crate's folder.
#[must_use]
pub fn sources() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program of the system, by name.
///
/// # Errors
/// It is in no folder of `PATH` nor in the places of Debian for servers; the message names the set-up.
pub fn program(name: &str) -> Result<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    folders.extend(["/usr/sbin", "/sbin", "/usr/local/go/bin"].map(PathBuf::from));
    if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
        folders.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    existing(folders.into_iter().map(|folder| folder.join(name)), name)
}

/// A program inside the cache of set-up, by its path there.
pub fn cached(path: &str) -> Result<PathBuf> {
    existing(std::iter::once(cache()?.join(path)), path)
}

fn existing(mut candidates: impl Iterator<Item = PathBuf>, name: &str) -> Result<PathBuf> {
    match candidates.find(|candidate| candidate.exists()) {
        Some(found) => Ok(found),
        None => bail!("{name} is missing: run `cargo xtask setup --for test`"),
    }
}

static WEIR: OnceLock<PathBuf> = OnceLock::new();

/// Names the agent under test for this process; the first word counts.
pub fn use_weir(path: PathBuf) {
    WEIR.get_or_init(|| path);
}

/// The agent under test: [`use_weir`], `WEIR_BIN`, else the workspace's release binary.
pub fn weir() -> Result<PathBuf> {
    let path = WEIR.get_or_init(|| match std::env::var_os("WEIR_BIN") {
        Some(path) => PathBuf::from(path),
        None => sources().join("../target/release/weir"),
    });
    if !path.exists() {
        bail!("{} is missing: run `cargo xtask test`, which builds it", path.display());
    }
    Ok(path.clone())
}

/// A folder of one test, removed with everything in it.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes it; readable by the accounts that servers change to.
    pub fn new(name: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("weir-{name}-{}-{serial}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(Self(path))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path inside.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file inside, gives its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.join(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("WEIR_TEST_KEEP").is_none() {
            // A folder that stays behind harms no test; the next run has another name.
            drop(fs::remove_dir_all(&self.0));
        }
    }
}

/// A TCP port that nobody listens on, outside the range for outgoing connections; never the same twice in a process.
pub fn free_port() -> Result<u16> {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port from {FIRST} on")
}

/// `name=value` for a command's environment.
#[must_use]
pub fn variable(name: &str, value: impl Into<OsString>) -> (OsString, OsString) {
    (name.into(), value.into())
}

/// Resident memory of a process, bytes, without what it maps of BPF maps: those are the kernel's, and a ring's pages
/// are mapped twice (`kernel/bpf/ringbuf.c`).
pub fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let (mut total, mut ours) = (0, true);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Rss:") if ours => total += words.next().context("no Rss")?.parse::<u64>()?,
            // A mapping's own line begins with its addresses.
            Some(first) if first.contains('-') && !first.ends_with(':') => ours = !line.ends_with("anon_inode:bpf-map"),
            _ => {}
        }
    }
    Ok(total * 1024)
}

/// Memory of the BPF maps that a process holds open, each once, bytes: as the kernel says it (`memlock` in `fdinfo`),
/// which leaves out what sockets keep in their own storage.
pub fn map_memory(pid: u32) -> Result<u64> {
    let folder = format!("/proc/{pid}/fdinfo");
    let mut maps = BTreeMap::new();
    for file in fs::read_dir(&folder).with_context(|| format!("reading {folder}"))? {
        // A descriptor may be closed between the listing and the look.
        let Ok(text) = fs::read_to_string(file?.path()) else { continue };
        let number = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        if let (Some(id), Some(bytes)) = (number("map_id:"), number("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    Ok(maps.values().sum())
}
