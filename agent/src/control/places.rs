//! Who is served at once. A reader may hold its place for as long as it likes (`weir calls --follow | less`), so that
//! readers never take the places of those who may change things: `weir mode monitor` gets through.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::routes::Caller;

/// Connections at once of those who may change things; further ones wait in the socket's queue.
pub(super) const CHANGERS: usize = 64;
/// Connections at once of all others; further ones are refused with [`FULL`].
pub(super) const READERS: usize = 32;
/// Of them, connections of one user.
const EACH: usize = 16;

/// What a reader beyond the bounds is told.
pub(super) const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
    Content-Length: 59\r\nConnection: close\r\n\r\n{\"error\":\"too many readers are connected; end some first\"}\n";

/// Places, free and taken.
pub(super) struct Places {
    changers: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    users: Arc<Mutex<Users>>,
}

/// Places that users hold, without those who hold none.
type Users = BTreeMap<Option<u32>, usize>;

/// A place; free again when it is dropped.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _of_user: Option<OfUser>,
}

struct OfUser {
    user: Option<u32>,
    users: Arc<Mutex<Users>>,
}

impl Places {
    pub(super) fn new() -> Self {
        Self {
            changers: Arc::new(Semaphore::new(CHANGERS)),
            readers: Arc::new(Semaphore::new(READERS)),
            users: Arc::default(),
        }
    }

    /// A place for a connection: who may change things waits for one, a reader is refused where there is none.
    pub(super) async fn take(&self, caller: Caller) -> Option<Place> {
        if caller.may_change {
            let permit = Arc::clone(&self.changers).acquire_owned().await.ok()?;
            return Some(Place { _permit: permit, _of_user: None });
        }
        let permit = Arc::clone(&self.readers).try_acquire_owned().ok()?;
        let user = caller.uid;
        let mut users = lock(&self.users);
        let held = users.entry(user).or_default();
        if *held >= EACH {
            return None;
        }
        *held += 1;
        Some(Place { _permit: permit, _of_user: Some(OfUser { user, users: Arc::clone(&self.users) }) })
    }

    /// Waits until nobody has a place.
    pub(super) async fn empty(&self) {
        let _changers = self.changers.acquire_many(CHANGERS as u32).await;
        let _readers = self.readers.acquire_many(READERS as u32).await;
    }
}

impl Drop for OfUser {
    fn drop(&mut self) {
        let mut users = lock(&self.users);
        if let Some(held) = users.get_mut(&self.user) {
            *held -= 1;
            if *held == 0 {
                users.remove(&self.user);
            }
        }
    }
}

fn lock(users: &Mutex<Users>) -> MutexGuard<'_, Users> {
    users.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uid: u32) -> Caller {
        Caller { may_change: uid == 0, uid: Some(uid), pid: None }
    }

    #[tokio::test]
    async fn readers_are_bounded_each_and_together_and_root_is_not_among_them() {
        let places = Places::new();
        let mut held = Vec::new();
        for (uid, fits) in [(1000, EACH), (1001, EACH), (1002, 0)] {
            for _ in 0..fits {
                held.push(places.take(of(uid)).await.unwrap());
            }
            assert!(places.take(of(uid)).await.is_none(), "{uid}");
        }
        assert!(places.take(of(0)).await.is_some());
        held.pop();
        held.push(places.take(of(1002)).await.unwrap());
        held.clear();
        places.empty().await;
        assert!(lock(&places.users).is_empty());
        assert!(places.take(of(1000)).await.is_some());
    }

    #[test]
    fn what_a_refused_reader_is_told_is_a_whole_answer() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).unwrap()["error"].is_string());
    }
}
