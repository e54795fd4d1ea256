use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::*;
use crate::model::{Kind, Service, sample};

const MIB: usize = 1 << 20;

/// Call `n`: its cookie and start say so, its service is one of three.
fn call(n: u64) -> Arc<Exchange> {
    let mut exchange = sample::exchange(if n.is_multiple_of(2) { Kind::Server } else { Kind::Client });
    Arc::make_mut(&mut exchange.connection).cookie = n;
    Arc::make_mut(&mut exchange.service).name = format!("service-{}", n % 3).into();
    exchange.start_unix_ns = sample::START_UNIX_NS + n;
    Arc::new(exchange)
}

fn numbers(calls: &[Arc<Exchange>]) -> Vec<u64> {
    calls.iter().map(|call| call.connection.cookie).collect()
}

fn all(recent: &Recent) -> Vec<u64> {
    numbers(&recent.newest(&Filter::default(), usize::MAX))
}

fn recent(limit: usize, disk: Option<Disk>) -> Recent {
    Recent::new(limit, disk, Arc::default())
}

/// A disk store that has been opened, or could not be.
fn disk(path: &Path, limit: u64) -> Disk {
    let disk = Disk::start(path, limit, Arc::default()).unwrap();
    disk.flush();
    disk
}

/// A path of its own for each test; the folder is gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-recent-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("calls.redb")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn newest_come_first_and_filters_hold() {
    let recent = recent(MIB, None);
    for n in 0..600 {
        recent.insert(call(n));
    }
    assert_eq!(all(&recent), (0..600).rev().collect::<Vec<_>>());
    let mut filter = Filter::default();
    filter.set("service", "service-1", 0).unwrap();
    assert_eq!(numbers(&recent.newest(&filter, 3)), [598, 595, 592]);
    filter.set("kind", "server", 0).unwrap();
    assert_eq!(numbers(&recent.newest(&filter, 2)), [598, 592]);
    assert_eq!(numbers(&recent.newest(&filter, 0)), Vec::<u64>::new());
}

#[test]
fn memory_stays_within_its_bytes() {
    let limit = 256 << 10;
    let recent = recent(limit, None);
    for n in 0..5_000 {
        recent.insert(call(n));
        assert!(recent.stats().bytes <= limit as u64);
    }
    let stats = recent.stats();
    let first = 5_000 - stats.calls;
    assert_eq!(all(&recent), (first..5_000).rev().collect::<Vec<_>>());
    assert_eq!(recent.meter.get(Count::Kept), 5_000);
    assert_eq!(recent.meter.get(Count::Evicted), first);
    assert_eq!(stats.oldest_unix_ns, Some(sample::START_UNIX_NS + first));
    recent.set_limit(limit / 2);
    let halved = recent.stats();
    // Calls leave by blocks, each at most a 32nd of what is allowed.
    assert!(
        halved.bytes <= limit as u64 / 2 && halved.calls.abs_diff(stats.calls / 2) <= stats.calls / 16,
        "{halved:?}"
    );
    recent.set_limit(0);
    assert_eq!((recent.stats().calls, recent.stats().bytes), (0, 0), "everything is given back");
}

#[test]
fn shared_blocks_count_once() {
    let bytes = |share: bool| {
        let recent = recent(64 * MIB, None);
        let first = call(0);
        for n in 0..1_000 {
            let mut exchange = Exchange::clone(&call(n));
            if share {
                exchange.connection = first.connection.clone();
                exchange.service = first.service.clone();
                exchange.peer.clone_from(&first.peer);
            }
            recent.insert(Arc::new(exchange));
        }
        recent.stats().bytes
    };
    let (shared, alone) = (bytes(true), bytes(false));
    let blocks = 999 * (size_of::<crate::model::Connection>() + 2 * size_of::<Service>()) as u64;
    assert!(alone - shared > blocks, "{alone} {shared}");
}

/// The books against the allocator: what glibc has handed out for the store.
#[test]
fn books_agree_with_the_allocator() {
    // Other tests run beside this one: a child of its own.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "recent::tests::child_that_weighs", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = |key: &str| -> f64 {
        text.split_whitespace().find_map(|word| word.strip_prefix(key)).and_then(|n| n.parse().ok()).unwrap()
    };
    let ratio = value("booked=") / value("taken=");
    assert!((0.95..1.4).contains(&ratio), "booked / taken = {ratio}");
}

#[test]
#[ignore = "run by books_agree_with_the_allocator"]
fn child_that_weighs() {
    // SAFETY: mallinfo2 only reads the allocator's statistics.
    let taken = || unsafe { libc::mallinfo2() }.uordblks;
    let before = taken();
    let recent = recent(64 * MIB, None);
    for n in 0..20_000 {
        recent.insert(call(n));
    }
    println!("\ntaken={} booked={}", taken() - before, recent.stats().bytes);
}

/// What keeping a call costs, with the ring full: `cargo test --config profile.test.package.weir.opt-level=3 -- --ignored`.
#[test]
#[ignore = "a measurement"]
fn cost_of_insert() {
    let recent = recent(64 * MIB, None);
    let connections: Vec<_> = (0..64).map(call).collect();
    let calls = |from: u64| -> Vec<Arc<Exchange>> {
        (from..from + 100_000)
            .map(|n| {
                let like = &connections[n as usize % connections.len()];
                let connection = like.connection.clone();
                Arc::new(Exchange { connection, start_unix_ns: n, ..Exchange::clone(like) })
            })
            .collect()
    };
    for round in 0..6 {
        let calls = calls(round * 100_000);
        let started = cpu_ns();
        for call in calls {
            recent.insert(call);
        }
        println!("{} ns a call, {} kept", (cpu_ns() - started) / 100_000, recent.stats().calls);
    }
}

/// Processor time of this thread.
fn cpu_ns() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists and the time is a value of this frame.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

#[test]
fn followers_get_each_call_once_and_know_what_they_missed() {
    let recent = recent(64 << 10, None);
    recent.insert(call(0));
    let mut place = recent.end();
    assert_eq!(recent.since(place, &Filter::default()).calls.len(), 0);
    for n in 1..=3 {
        recent.insert(call(n));
    }
    let news = recent.since(place, &Filter::default());
    assert_eq!((numbers(&news.calls), news.missed), (vec![1, 2, 3], 0));
    place = news.next;
    for n in 4..1_000 {
        recent.insert(call(n));
    }
    let kept = recent.stats().calls;
    let news = recent.since(place, &Filter::default());
    assert_eq!(news.missed, 996 - kept);
    assert_eq!(numbers(&news.calls), (1_000 - kept..1_000).collect::<Vec<_>>());
    assert_eq!((news.next, recent.since(news.next, &Filter::default()).calls.len()), (recent.end(), 0));
}

#[test]
fn disk_goes_on_where_memory_ends_also_after_a_restart() {
    let folder = Folder::new("restart");
    let first = recent(64 << 10, Some(disk(&folder.file(), 16 << 20)));
    for n in 0..3_000 {
        first.insert(call(n));
    }
    first.flush();
    assert!(first.stats().calls < 200);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(folder.file()).unwrap().permissions());
    assert_eq!(mode & 0o7777, 0o600, "nobody else reads who asked what of whom");
    assert_eq!(all(&first), (0..3_000).rev().collect::<Vec<_>>());
    drop(first);
    let second = recent(64 << 10, Some(disk(&folder.file(), 16 << 20)));
    assert_eq!(second.stats().disk.unwrap().calls, 3_000);
    for n in 3_000..3_010 {
        second.insert(call(n));
    }
    second.flush();
    assert_eq!(all(&second), (0..3_010).rev().collect::<Vec<_>>());
    let filter = Filter { since_unix_ns: Some(sample::START_UNIX_NS + 2_998), ..Filter::default() };
    assert_eq!(numbers(&second.newest(&filter, usize::MAX)), (2_998..3_010).rev().collect::<Vec<_>>());
    let stats = second.stats().disk.unwrap();
    assert_eq!((stats.calls, stats.lost, stats.error), (3_010, 0, None));
}

#[test]
fn the_file_stays_within_its_bytes() {
    for limit in [4 << 20, 6_500_000] {
        let folder = Folder::new("bound");
        let recent = recent(64 << 10, Some(disk(&folder.file(), limit)));
        let mut n = 0;
        while n < 40_000 {
            for _ in 0..2_000 {
                let mut exchange = Exchange::clone(&call(n));
                sample::http(&mut exchange).target = noise(n).into();
                recent.insert(Arc::new(exchange));
                n += 1;
            }
            recent.flush();
            let stats = recent.stats().disk.unwrap();
            assert!(stats.bytes <= limit, "{stats:?}");
        }
        let stats = recent.stats().disk.unwrap();
        assert_eq!((stats.lost, stats.error), (0, None));
        assert!(stats.calls > 2_000 && stats.calls < n, "{}", stats.calls);
        assert_eq!(all(&recent), (n - stats.calls..n).rev().collect::<Vec<_>>());
    }
}

/// A text that does not compress.
fn noise(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + (state >> 58) as u8)
    };
    (0..200).map(|_| next()).collect()
}

#[test]
fn a_second_agent_and_a_foreign_file_are_refused() {
    let folder = Folder::new("refused");
    let first = disk(&folder.file(), 16 << 20);
    let second = recent(MIB, Some(disk(&folder.file(), 16 << 20)));
    second.insert(call(1));
    second.flush();
    let stats = second.stats().disk.unwrap();
    assert_eq!(stats.error.as_deref(), Some("it is in use by another process; is a second agent running?"));
    assert_eq!((stats.lost, all(&second)), (1, vec![1]));
    drop(first);
    let other = folder.0.join("notes.txt");
    std::fs::write(&other, "not a store at all\n".repeat(1_000)).unwrap();
    assert!(disk(&other, 16 << 20).stats().error.is_some());
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "not a store at all\n".repeat(1_000), "it is left as it was");
    assert!(disk(Path::new("/proc/none/calls.redb"), 16 << 20).stats().error.is_some());
}

/// Starts a test of this binary that is marked as ignored, as a process of its own.
fn child(test: &str, path: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("recent::tests::{test}"), "--ignored", "--nocapture"])
        .env("WEIR_TEST_STORE", path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn store_of_child() -> Recent {
    let path = std::env::var_os("WEIR_TEST_STORE").expect("is run by another test");
    recent(64 << 10, Some(disk(Path::new(&path), 8 << 20)))
}

#[test]
fn a_killed_agent_leaves_a_consistent_store() {
    let folder = Folder::new("killed");
    let mut before = 0;
    for round in 0..5 {
        let mut child = child("child_that_writes", &folder.file());
        let started = Instant::now();
        // Killed at another moment of its writing each time.
        std::thread::sleep(Duration::from_millis(700 + 137 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let reopened = recent(MIB, Some(disk(&folder.file(), 8 << 20)));
        let stats = reopened.stats().disk.unwrap();
        let found = all(&reopened);
        assert_eq!((found.len() as u64, &stats.error), (stats.calls, &None));
        // Each run's calls without a hole, newest first.
        let newest = *found.first().unwrap_or_else(|| panic!("nothing after {:?}", started.elapsed()));
        let run = found.iter().take_while(|n| **n > 0).count();
        assert_eq!(
            found[..run.min(newest as usize)],
            (1..=newest).rev().collect::<Vec<_>>()[..run.min(newest as usize)]
        );
        assert!(stats.calls > before || stats.bytes > 4 << 20, "round {round} added nothing: {stats:?}");
        before = stats.calls;
    }
}

#[test]
#[ignore = "run by a_killed_agent_leaves_a_consistent_store"]
fn child_that_writes() {
    let recent = store_of_child();
    for n in 0.. {
        recent.insert(call(n));
        std::thread::sleep(Duration::from_micros(50));
    }
}

#[test]
fn a_full_disk_loses_calls_and_nothing_else() {
    let folder = Folder::new("full");
    let mut child = child("child_on_a_full_disk", &folder.file());
    assert!(child.wait().unwrap().success());
    let reopened = recent(MIB, Some(disk(&folder.file(), 8 << 20)));
    let found = all(&reopened);
    assert!(!found.is_empty());
    assert_eq!(found, (0..found.len() as u64).rev().collect::<Vec<_>>());
}

#[test]
#[ignore = "run by a_full_disk_loses_calls_and_nothing_else"]
fn child_on_a_full_disk() {
    let recent = store_of_child();
    for n in 0..2_000 {
        recent.insert(call(n));
    }
    recent.flush();
    let stats = recent.stats().disk.unwrap();
    assert_eq!((stats.calls, stats.lost, stats.error), (2_000, 0, None));
    // From here on the file can't grow: EFBIG, as ENOSPC.
    let limit = libc::rlimit { rlim_cur: stats.bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: both calls take values of this frame; the signal is ignored so that writes fail instead.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
    let mut n = 2_000;
    while recent.stats().disk.unwrap().error.is_none() {
        assert!(n < 2_000_000, "the disk never filled");
        for _ in 0..2_000 {
            recent.insert(call(n));
            n += 1;
        }
        recent.flush();
    }
    let stats = recent.stats().disk.unwrap();
    assert!(stats.lost > 0);
    assert_eq!(stats.calls + stats.lost, n, "each call is kept or counted");
    recent.insert(call(n));
    assert_eq!(numbers(&recent.newest(&Filter::default(), 1)), [n], "memory goes on");
}
