//! Notice of changes in a folder. It only wakes: what changed is found by looking, which is done without notice too.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};

/// After a change, time for others that belong to it.
const SETTLE: Duration = Duration::from_millis(100);

/// A folder that is watched, where the kernel allows it.
pub(super) struct Watch(Option<AsyncFd<OwnedFd>>);

impl Watch {
    /// Watches nothing yet. Within a tokio runtime.
    pub(super) fn new() -> Self {
        let made = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(std::io::Error::from);
        // SAFETY: an `OwnedFd` is open, and the same, for as long as it lives, and the `AsyncFd` owns it.
        let register = |fd| unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        match made.and_then(|fd| register(fd).map_err(Into::into)) {
            Ok(fd) => Self(Some(fd)),
            Err(error) => {
                tracing::warn!(%error, "changes of files are seen late: there is no inotify instance left");
                Self(None)
            }
        }
    }

    /// Watches a folder; to be called again before each look, as the folder may be another one by then.
    pub(super) fn on(&self, folder: &Path) {
        // A ConfigMap is swapped by renaming the link `..data`, an editor renames, `ln -s` only creates.
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        if let Some(fd) = &self.0 {
            // A folder that is not there is found by looking.
            let _ = inotify::add_watch(fd.get_ref(), folder, flags);
        }
    }

    /// Waits for a change, at most this long.
    pub(super) async fn changed(&self, most: Duration) {
        let end = Instant::now() + most;
        let Some(fd) = &self.0 else { return sleep(most).await };
        match timeout_at(end, drained(fd)).await {
            Err(_) => return,
            Ok(Err(error)) => {
                tracing::debug!(%error, "inotify");
                return sleep(most).await;
            }
            Ok(Ok(())) => {}
        }
        // More of the same, for a while, but not for ever in a busy folder.
        for _ in 0..10 {
            if timeout_at(Instant::now() + SETTLE, drained(fd)).await.is_err() {
                return;
            }
        }
    }
}

/// Waits until there is something, and reads all of it.
async fn drained(fd: &AsyncFd<OwnedFd>) -> std::io::Result<()> {
    loop {
        let mut ready = fd.readable().await?;
        let mut some = false;
        let mut buffer = [0_u8; 4096];
        let result = ready.try_io(|fd| {
            loop {
                match rustix::io::read(fd.get_ref(), &mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(_) => some = true,
                    Err(error) => return Err(error.into()),
                }
            }
        });
        match result {
            Ok(done) => return done,
            Err(_) if some => return Ok(()),
            // It was not ready after all.
            Err(_) => {}
        }
    }
}
