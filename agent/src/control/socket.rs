//! The socket's file: made so that nobody else can use it for a moment, held by one agent at a time.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use super::GROUP;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another agent has it.
    #[error("{} is held by another agent{}; stop that one first, or give this one another control.socket", path.display(), who(*pid))]
    InUse {
        /// The socket.
        path: PathBuf,
        /// The other agent's process.
        pid: Option<u32>,
    },
    /// Something else has its name.
    #[error("{} is not a socket; remove it, or choose another control.socket", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("can't make the control socket {}: {doing}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn who(pid: Option<u32>) -> String {
    pid.map_or(String::new(), |pid| format!(" (pid {pid})"))
}

/// The right to the socket, from before the kernel half is loaded until the agent ends. The kernel gives it back when a
/// process dies, however that happens.
#[derive(Debug)]
pub struct Holder {
    path: PathBuf,
    lock: File,
}

impl Holder {
    /// Takes the right to a socket; its folder is made where missing.
    pub fn take(path: &Path) -> Result<Self, Error> {
        let failed = |doing| move |source| Error::Io { path: path.to_owned(), doing, source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed("making its folder"))?;
        }
        // Looked at first: a wrong path must not leave a lock beside somebody's file.
        if fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.file_type().is_socket()) {
            return Err(Error::NotASocket(path.to_owned()));
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        // Nobody else may open it: who can read a file can lock it, and would keep the agent from starting. Nor may it
        // lead to another file, which would be emptied.
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&name)
            .map_err(failed("opening its lock"))?;
        let mode = lock.metadata().map_or(0, |metadata| metadata.mode());
        if mode & 0o077 != 0 {
            lock.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed("closing its lock to others"))?;
        }
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = (&lock).take(20).read_to_string(&mut text);
                return Err(Error::InUse { path: path.to_owned(), pid: text.trim().parse().ok() });
            }
            Err(TryLockError::Error(source)) => return Err(failed("locking")(source)),
        }
        let written =
            lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(failed("writing its lock"))?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// The socket's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Listens. The socket appears under its name with its mode and owner already set, in place of one that a dead
    /// agent left.
    pub(super) fn listen(&self, group: Option<u32>) -> Result<UnixListener, Error> {
        let failed = |doing| move |source| Error::Io { path: self.path.clone(), doing, source };
        let mut name = self.path.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        let _ = fs::remove_file(&new);
        let listener = UnixListener::bind(&new).map_err(failed("binding"))?;
        let placed = fs::set_permissions(&new, fs::Permissions::from_mode(0o660))
            .and_then(|()| group.map_or(Ok(()), |group| chown(&new, None, Some(group)).or_else(not_permitted)))
            .and_then(|()| fs::rename(&new, &self.path));
        if placed.is_err() {
            let _ = fs::remove_file(&new);
        }
        placed.map_err(failed("putting it in place"))?;
        listener.set_nonblocking(true).map_err(failed("setting it up"))?;
        Ok(listener)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // The lock's file stays: removing it would let a third agent lock a new one beside the second's.
        let _ = fs::remove_file(&self.path);
        let _ = self.lock.unlock();
    }
}

/// An agent that is not root, or has no `CAP_CHOWN`, can't give the socket away: then its own user has it, and it is said.
fn not_permitted(error: io::Error) -> io::Result<()> {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return Err(error);
    }
    tracing::warn!(
        "the control socket can't be given to the group {GROUP} without CAP_CHOWN: only the agent's user may read"
    );
    Ok(())
}

/// A group's id by its name (group(5)).
pub(super) fn group(file: &str, name: &str) -> Option<u32> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name() {
        let path = std::env::temp_dir().join(format!("weir-group-{}", std::process::id()));
        fs::write(&path, "root:x:0:\nweird:x:7:\nweir:x:998:alice,bob\nbad:x\n").unwrap();
        let file = path.to_str().unwrap();
        assert_eq!([group(file, "weir"), group(file, "bad"), group(file, "wei")], [Some(998), None, None]);
        fs::remove_file(&path).unwrap();
        assert_eq!(group(file, "weir"), None);
    }
}
