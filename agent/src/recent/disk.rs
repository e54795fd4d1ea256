//! Recent calls on disk: blocks of calls in a redb table, oldest first, written by a thread of its own. A full or broken
//! disk costs calls, which are counted and warned of, and never more than that.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition, backends::FileBackend,
};

use super::{
    block::{self, Filling},
    code,
};
use crate::{
    meter::{Count, Meter},
    model::{Exchange, Filter},
};

/// Calls that wait for the writer; beyond it they are lost to the disk.
const QUEUE: usize = 8192;
/// The longest that a call waits to be written.
const DELAY: Duration = Duration::from_millis(500);
/// Before a broken store is opened again.
const RETRY: Duration = Duration::from_secs(10);
/// redb's page cache, bytes; its default is a gigabyte.
const CACHE: usize = 1 << 20;
/// Bytes of the file for what is not a block.
const SLACK: u64 = 1 << 20;
/// Blocks read at once.
const READ: usize = 16;

/// The store on disk.
#[derive(Debug)]
pub struct Disk {
    sender: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

/// What is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskStats {
    /// The file.
    pub path: PathBuf,
    /// Calls in it.
    pub calls: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes it may have.
    pub limit: u64,
    /// Calls that could not be written: the disk was full, broken or too slow.
    pub lost: u64,
    /// Why nothing is written at the moment.
    pub error: Option<String>,
}

/// Why nothing can be written or read at the moment: one of redb's errors, or the system's.
type Broken = Box<dyn std::error::Error>;

#[derive(Debug)]
enum Message {
    Call(u64, Arc<Exchange>),
    /// Write what is there, then drop the sender.
    Flush(SyncSender<()>),
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    limit: u64,
    /// This run of the agent, so that its numbers of calls are not taken for another's.
    run: u64,
    /// `None` while it is broken.
    database: Mutex<Option<Arc<Database>>>,
    error: Mutex<Option<String>>,
    calls: AtomicU64,
    meter: Arc<Meter>,
}

impl Disk {
    /// A store of at most `limit` bytes, 4 MiB at least, which its own thread opens or makes: what is wrong with it is
    /// told by [`DiskStats::error`] and in the log, tried again, and costs calls, counted in `meter`. A file that a
    /// killed agent left is consistent: what was committed is there, at most half a second of calls is missing.
    pub fn start(path: &Path, limit: u64, meter: Arc<Meter>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            limit,
            run: crate::clock::unix_ns(),
            database: Mutex::new(None),
            error: Mutex::new(None),
            calls: AtomicU64::new(0),
            meter,
        });
        let (sender, receiver) = sync_channel(QUEUE);
        let writer = Writer::new(shared.clone());
        let thread = std::thread::Builder::new().name("weir-disk".into()).spawn(move || writer.run(&receiver))?;
        Ok(Self { sender: Some(sender), thread: Some(thread), shared })
    }

    /// Hands a call to the writer; never waits.
    pub(super) fn keep(&self, number: u64, exchange: Arc<Exchange>) {
        let Some(sender) = &self.sender else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            sender.try_send(Message::Call(number, exchange))
        {
            self.shared.meter.add(Count::LostDisk, 1);
        }
    }

    /// Waits until everything kept so far is written (or lost).
    pub(super) fn flush(&self) {
        let (done, wait) = sync_channel(0);
        if let Some(sender) = &self.sender
            && sender.send(Message::Flush(done)).is_ok()
        {
            // The writer drops its end when it is done.
            let _ = wait.recv();
        }
    }

    /// Adds calls that fit, newest first, until there are `last`; of this run only those numbered below `before`.
    pub(super) fn below(&self, before: u64, filter: &Filter, last: usize, found: &mut Vec<Arc<Exchange>>) {
        let mut next = u64::MAX;
        while found.len() < last {
            let Some(blocks) = self.shared.blocks(next).filter(|blocks| !blocks.is_empty()) else { return };
            for (key, block) in blocks {
                next = key;
                let Some(header) = block::header(&block) else { continue };
                if filter.since_unix_ns.is_some_and(|since| header.newest_unix_ns < since) {
                    continue;
                }
                let here = |number: u64| header.run != self.shared.run || number < before;
                let calls = block::unpack(&block).into_iter().rev().filter(|(number, _)| here(*number));
                found.extend(calls.map(|(_, call)| call).filter(|call| filter.takes(call)).take(last - found.len()));
                if found.len() >= last {
                    return;
                }
            }
        }
    }

    /// What is on disk.
    #[must_use]
    pub fn stats(&self) -> DiskStats {
        let shared = &self.shared;
        DiskStats {
            path: shared.path.clone(),
            calls: shared.calls.load(Relaxed),
            bytes: shared.file_bytes(),
            limit: shared.limit,
            lost: shared.meter.get(Count::LostDisk),
            error: shared.error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl Drop for Disk {
    /// Writes what is there and closes the file.
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn database(&self) -> Option<Arc<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_database(&self, database: Option<Arc<Database>>) {
        *self.database.lock().unwrap_or_else(PoisonError::into_inner) = database;
    }

    fn file_bytes(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    /// A few blocks below a key, newest first; `None` when they can't be read.
    fn blocks(&self, below: u64) -> Option<Vec<(u64, Vec<u8>)>> {
        let read = self.database()?.begin_read().ok()?;
        let table = read.open_table(table(&table_name())).ok()?;
        let range = table.range(..below).ok()?;
        range.rev().take(READ).map(|row| row.ok().map(|(key, block)| (key.value(), block.value().to_vec()))).collect()
    }
}

fn table_name() -> String {
    format!("calls-{}", code::VERSION)
}

fn table(name: &str) -> TableDefinition<'_, u64, &'static [u8]> {
    TableDefinition::new(name)
}

fn open(path: &Path) -> Result<Database, Broken> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut builder = Database::builder();
    // A file that something else wrote to is refused when it is opened, instead of a panic later.
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    let backend = FileBackend::new(file(path)?)?;
    builder.create_with_backend(backend).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => "it is in use by another process; is a second agent running?".into(),
        error => error.into(),
    })
}

/// The store's file. One that is made is for this user alone: calls tell who asked what of whom.
fn file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// The thread that writes.
struct Writer {
    shared: Arc<Shared>,
    filling: Filling,
    /// Key of the next block.
    next: u64,
    /// Bytes of blocks in the table.
    stored: u64,
    /// Bytes of blocks that fit into the file.
    budget: u64,
    /// When the store broke.
    broken: Option<Instant>,
}

impl Writer {
    fn new(shared: Arc<Shared>) -> Self {
        // redb doubles its file: one of the sizes on that way is between half the limit and the limit, and what fits
        // into half of it never needs the next. The rest is for trees, and for pages freed but not yet reused.
        let budget = (shared.limit / 2).saturating_sub(SLACK);
        Self { shared, filling: Filling::default(), next: 0, stored: 0, budget, broken: None }
    }

    fn run(mut self, receiver: &Receiver<Message>) {
        let mut due: Option<Instant> = None;
        self.reopen();
        loop {
            let wait = due.map_or(Duration::from_hours(1), |due| due.saturating_duration_since(Instant::now()));
            match receiver.recv_timeout(wait) {
                Ok(Message::Call(number, exchange)) => {
                    self.filling.add(number, &exchange);
                    due = due.or_else(|| Some(Instant::now() + DELAY));
                    if self.filling.is_full() {
                        self.write();
                        due = None;
                    }
                }
                Ok(Message::Flush(done)) => {
                    self.write();
                    due = None;
                    drop(done);
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.write();
                    due = None;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.write();
                    self.shared.set_database(None);
                    return;
                }
            }
        }
    }

    fn write(&mut self) {
        let calls = self.filling.calls();
        if calls == 0 {
            return;
        }
        let block = self.filling.pack(self.shared.run);
        if self.broken.is_some_and(|since| since.elapsed() >= RETRY) {
            self.reopen();
        }
        let written = match self.shared.database().map(|database| self.commit(&database, &block, u64::from(calls))) {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                self.fail(&error.to_string());
                false
            }
            None => false,
        };
        if !written {
            self.shared.meter.add(Count::LostDisk, u64::from(calls));
        }
    }

    fn reopen(&mut self) {
        match open(&self.shared.path) {
            Ok(database) => {
                self.take(database);
                let path = self.shared.path.display();
                if self.broken.is_none() {
                    tracing::info!(%path, calls = self.shared.calls.load(Relaxed), "recent calls are kept on disk");
                }
            }
            Err(error) => self.fail(&error.to_string()),
        }
    }

    /// Takes a database that was opened, and what is in it.
    fn take(&mut self, database: Database) {
        match measure(&database) {
            Ok((next, stored, calls)) => {
                self.next = next;
                self.stored = stored;
                self.shared.calls.store(calls, Relaxed);
                self.shared.set_database(Some(Arc::new(database)));
                self.broken = None;
                *self.shared.error.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
            Err(error) => self.fail(&error.to_string()),
        }
    }

    /// The store is broken: after an error redb refuses everything until it is opened again.
    fn fail(&mut self, error: &str) {
        let path = self.shared.path.display();
        if self.broken.is_none() {
            tracing::warn!(%path, %error, "recent calls can't be kept on disk; they are counted as lost");
        }
        self.broken = Some(Instant::now());
        self.shared.set_database(None);
        *self.shared.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_owned());
    }

    /// Writes a block and takes the oldest ones out, in one transaction.
    fn commit(&mut self, database: &Database, block: &[u8], calls: u64) -> Result<(), Broken> {
        let name = table_name();
        let transaction = database.begin_write()?;
        let (mut stored, mut kept) = (self.stored + room(block), self.shared.calls.load(Relaxed) + calls);
        {
            let mut table = transaction.open_table(table(&name))?;
            table.insert(self.next, block)?;
            while stored > self.budget {
                let Some((_, oldest)) = table.pop_first()? else { break };
                stored -= room(oldest.value());
                kept -= block::header(oldest.value()).map_or(0, |header| u64::from(header.calls));
            }
        }
        transaction.commit()?;
        self.next += 1;
        self.stored = stored;
        self.shared.calls.store(kept, Relaxed);
        Ok(())
    }
}

/// Bytes that a block takes in the file: redb gives a value larger than a page a power of two of them.
fn room(block: &[u8]) -> u64 {
    (block.len() as u64 + 256).next_power_of_two().max(4096)
}

/// Next key, bytes of blocks and calls of a store; tables of other layouts are removed.
fn measure(database: &Database) -> Result<(u64, u64, u64), Broken> {
    use redb::TableHandle as _;
    let name = table_name();
    let transaction = database.begin_write()?;
    let others: Vec<_> = transaction.list_tables()?.filter(|table| table.name() != name).collect();
    for other in others {
        transaction.delete_table(other)?;
    }
    let (mut next, mut stored, mut calls) = (0, 0, 0);
    {
        let table = transaction.open_table(table(&name))?;
        for row in table.iter()? {
            let (key, block) = row?;
            next = key.value() + 1;
            stored += room(block.value());
            calls += block::header(block.value()).map_or(0, |header| u64::from(header.calls));
        }
    }
    transaction.commit()?;
    Ok((next, stored, calls))
}
