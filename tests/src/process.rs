//! Programs that a test starts, each ended by its own id.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::place::Scratch;
use crate::wait;

/// A running program, leader of a process group of its own, killed with its group when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it; standard output and error go to `NAME.out` in `scratch`.
    pub fn start(mut command: Command, name: &str, scratch: &Scratch) -> Result<Self> {
        let output = scratch.join(&format!("{name}.out"));
        let file = File::options().create(true).append(true).open(&output)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, output, ended: None })
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub fn output(&self) -> Result<String> {
        read_lossy(&self.output)
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It runs longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait::until(limit, &what, || self.ended()).with_context(|| self.output().unwrap_or_default())
    }

    /// Waits until it ends by itself with status 0; gives its output.
    pub fn succeed(&mut self, limit: Duration) -> Result<String> {
        let status = self.wait(limit)?;
        let output = self.output()?;
        if !status.success() {
            bail!("{} ended with {status}:\n{output}", self.name);
        }
        Ok(output)
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.id()?, signal)?)
    }

    /// Ends it with `SIGTERM`, waits.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        self.wait(limit)
    }

    /// Ends it and its group at once.
    pub fn kill(&mut self) -> Result<()> {
        if self.ended()?.is_none() {
            self.signal(Signal::KILL)?;
            self.ended = Some(self.child.wait()?);
        }
        // Its children; it is no error when there are none left.
        match kill_process_group(self.id()?, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn id(&self) -> Result<Pid> {
        Pid::from_raw(self.child.id().cast_signed()).context("process id 0")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{}: {error:#}", self.name);
        }
    }
}

/// What a program said until it ended.
#[derive(Debug)]
pub struct Said {
    /// Exit code; 128 + signal where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs a program to its end within `limit`, whatever its status.
pub fn say(command: &mut Command, limit: Duration) -> Result<Said> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    let id = Pid::from_raw(child.id().cast_signed()).context("process id 0")?;
    let (out, err) = (child.stdout.take().context("no output")?, child.stderr.take().context("no errors")?);
    let reader = |mut from: Box<dyn io::Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).map(|_| String::from_utf8_lossy(&bytes).into_owned())
        })
    };
    let (out, err) = (reader(Box::new(out)), reader(Box::new(err)));
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= end {
            // Both fail only where it has just ended by itself.
            let _ = kill_process_group(id, Signal::KILL);
            drop(child.wait());
            bail!("{command:?}: not within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = |thread: std::thread::JoinHandle<io::Result<String>>| -> Result<String> {
        thread.join().map_err(|_| anyhow::anyhow!("the reader of {command:?} failed"))?.map_err(Into::into)
    };
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(Said { code, out: text(out)?, err: text(err)? })
}

/// Runs a program to its end, which must be success; gives its standard output.
pub fn run(command: &mut Command, limit: Duration) -> Result<String> {
    let said = say(command, limit)?;
    if said.code != 0 {
        bail!("{command:?} ended with {}:\n{}{}", said.code, said.out, said.err);
    }
    Ok(said.out)
}

/// Process ids of a process's children.
pub fn children(pid: u32) -> Result<Vec<u32>> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(list.split_whitespace().filter_map(|id| id.parse().ok()).collect())
}

fn read_lossy(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
