//! A terminal that tests type into and read: a tmux server of the test's own.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::place::{Scratch, program};
use crate::process::{self, Said};
use crate::wait;

/// Longest that a command of tmux may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Until something that was asked for stands on the screen.
const SHOW: Duration = Duration::from_secs(15);

/// A terminal with a shell in it; ended when dropped.
#[derive(Debug)]
pub struct Tmux {
    socket: PathBuf,
    _scratch: Scratch,
}

impl Tmux {
    /// Starts a shell whose prompt is `$ ` on a terminal of this size.
    pub fn start(columns: u16, lines: u16) -> Result<Self> {
        let scratch = Scratch::new("tmux")?;
        let tmux = Self { socket: scratch.join("tmux.sock"), _scratch: scratch };
        let (columns, lines) = (columns.to_string(), lines.to_string());
        let shell = ["env", "-i", "PATH=/usr/bin:/bin", "TERM=screen-256color", "LC_ALL=C.UTF-8", "PS1=$ ", "sh"];
        tmux.run(["-u", "-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &lines].iter().chain(&shell))?;
        tmux.run(["set-option", "-g", "status", "off"])?;
        // The status line took one until now.
        tmux.size(&columns, &lines)?;
        tmux.until("a prompt", |screen| screen.last_is("$"))?;
        Ok(tmux)
    }

    fn say<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> Result<Said> {
        process::say(
            Command::new(program("tmux")?).env("LC_ALL", "C.UTF-8").arg("-S").arg(&self.socket).args(arguments),
            LIMIT,
        )
    }

    fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> Result<String> {
        let said = self.say(arguments)?;
        ensure!(said.code == 0, "tmux ended with {}: {}", said.code, said.err);
        Ok(said.out)
    }

    fn size(&self, columns: &str, lines: &str) -> Result<()> {
        self.run(["resize-window", "-x", columns, "-y", lines]).map(drop)
    }

    /// Gives the terminal another size.
    pub fn resize(&self, columns: u16, lines: u16) -> Result<()> {
        self.size(&columns.to_string(), &lines.to_string())
    }

    /// Presses keys by tmux's names: `Enter`, `F1`, `C-c`, `Down`.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        self.run(["send-keys"].iter().chain(keys)).map(drop)
    }

    /// Types text as it is.
    pub fn type_in(&self, text: &str) -> Result<()> {
        self.run(["send-keys", "-l", text]).map(drop)
    }

    /// What stands on the terminal.
    pub fn screen(&self) -> Result<Screen> {
        self.run(["capture-pane", "-p"])
            .map(|text| Screen(text.lines().map(|line| line.trim_end().to_owned()).collect()))
    }

    /// The same with colours and other attributes as escape sequences.
    pub fn painted(&self) -> Result<String> {
        self.run(["capture-pane", "-p", "-e"])
    }

    /// Whether a program has switched to the alternate screen.
    pub fn is_alternate(&self) -> Result<bool> {
        Ok(self.run(["display-message", "-p", "#{alternate_on}"])?.trim() == "1")
    }

    /// Whether the cursor is to be seen.
    pub fn has_cursor(&self) -> Result<bool> {
        Ok(self.run(["display-message", "-p", "#{cursor_flag}"])?.trim() == "1")
    }

    /// The screen, once it is as wanted.
    pub fn until(&self, what: &str, wanted: impl Fn(&Screen) -> bool) -> Result<Screen> {
        let mut last = Screen(Vec::new());
        let reached = wait::until(SHOW, what, || {
            last = self.screen()?;
            Ok(wanted(&last).then_some(()))
        });
        reached.with_context(|| format!("the screen:\n{}", last.0.join("\n")))?;
        Ok(last)
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // A server that is gone already is no failure.
        drop(self.say(["kill-server"]));
    }
}

/// Lines of a terminal without the spaces at their ends.
#[derive(Clone, Debug)]
pub struct Screen(pub Vec<String>);

impl Screen {
    /// Whether a line contains this.
    #[must_use]
    pub fn has(&self, text: &str) -> bool {
        self.0.iter().any(|line| line.contains(text))
    }

    /// Whether the last line that is not empty is this.
    #[must_use]
    pub fn last_is(&self, text: &str) -> bool {
        self.0.iter().rev().find(|line| !line.is_empty()).is_some_and(|line| line == text)
    }

    /// Whether a line is made of these words among others, in this order from its beginning on.
    #[must_use]
    pub fn row(&self, words: &[&str]) -> bool {
        self.0.iter().any(|line| line.split_whitespace().take(words.len()).eq(words.iter().copied()))
    }
}
