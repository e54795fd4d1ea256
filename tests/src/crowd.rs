//! More connections than a process may have open files: held by threads that have a table of open files each.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// What each connection asks for.
const REQUEST: &[u8] = b"GET /s/200 HTTP/1.1\r\nHost: x\r\n\r\n";
/// Between two bytes of a slow client.
const PACE: Duration = Duration::from_secs(1);
/// Longest that an answer may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// Open connections to a server on loopback.
#[derive(Debug)]
pub struct Crowd {
    rows: Vec<Row>,
}

/// A thread with its connections.
#[derive(Debug)]
struct Row {
    /// How many of its clients are slow in the next round of requests.
    slow: Sender<usize>,
    done: Receiver<()>,
    thread: JoinHandle<Result<()>>,
}

/// Lets this process, and what it starts, have as many open files as it may.
pub fn raise_open_files() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("raising the limit of open files")
}

impl Crowd {
    /// Opens `each` connections by each of `threads` threads: to 127.0.0.1, 127.0.0.2 and so on, which have 28 000 free
    /// ports each.
    pub fn connect(threads: u8, each: usize, port: u16) -> Result<Self> {
        let rows = (1..=threads).map(|last| {
            let to = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port));
            let (slow, rounds) = mpsc::channel();
            let (tell, done) = mpsc::channel();
            let thread = thread::spawn(move || hold(to, each, &rounds, &tell));
            Row { slow, done, thread }
        });
        let crowd = Self { rows: rows.collect() };
        crowd.wait()
    }

    /// One request on each connection, `slow` of each thread's a byte a second; returns when all are answered.
    pub fn ask(self, slow: usize) -> Result<Self> {
        for row in &self.rows {
            // A thread that is gone says why when it is waited for.
            let _ = row.slow.send(slow);
        }
        self.wait()
    }

    /// Closes all connections.
    pub fn close(self) -> Result<()> {
        for row in self.rows {
            drop(row.slow);
            row.thread.join().map_err(|_| anyhow!("a thread of the crowd failed"))??;
        }
        Ok(())
    }

    fn wait(self) -> Result<Self> {
        let gone = self.rows.iter().any(|row| row.done.recv().is_err());
        if gone {
            self.close()?;
            return Err(anyhow!("a thread of the crowd ended early"));
        }
        Ok(self)
    }
}

fn hold(to: SocketAddr, count: usize, rounds: &Receiver<usize>, done: &Sender<()>) -> Result<()> {
    // SAFETY: what this thread opens from here on it also closes itself, and nobody else has a file of its by number.
    unsafe { unshare_unsafe(UnshareFlags::FILES) }.context("a table of open files of its own")?;
    let mut streams = Vec::with_capacity(count);
    for at in 0..count {
        let stream = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connection {at} to {to}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        streams.push(stream);
    }
    done.send(())?;
    while let Ok(slow) = rounds.recv() {
        let (slow, quick) = streams.split_at_mut_checked(slow).context("more slow clients than connections")?;
        // One after another: this is a crowd and no rush.
        for stream in quick {
            stream.write_all(REQUEST)?;
            answer(stream)?;
        }
        let mut next = Instant::now();
        for byte in REQUEST.chunks(if slow.is_empty() { REQUEST.len() } else { 1 }) {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            slow.iter_mut().try_for_each(|stream| stream.write_all(byte))?;
            next += if slow.is_empty() { Duration::ZERO } else { PACE };
        }
        slow.iter_mut().try_for_each(answer)?;
        done.send(())?;
    }
    Ok(())
}

fn answer(stream: &mut TcpStream) -> Result<()> {
    let mut answer = [0; 512];
    let count = stream.read(&mut answer)?;
    ensure!(answer.starts_with(b"HTTP/1.1 200 ") && count > 100, "{count} bytes of an answer");
    Ok(())
}
