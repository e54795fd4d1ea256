//! Suites that watch no node run beside those that mostly wait, on what processor time these leave.

use std::{
    env, fs,
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{Outcome, Row};
use crate::repo;

/// The first suite that does not mind: those before it load the machine to its limits and count what is lost.
const FROM: &str = "kubernetes";

/// A run of some suites beside this one.
pub(super) struct Beside {
    suites: Vec<String>,
    run: Option<Child>,
}

impl Beside {
    /// Takes those of `wanted` that are `able` to, where one is wanted beside which they can run.
    pub(super) fn of(wanted: &[&str], able: &[&str]) -> Self {
        let taken = wanted.iter().filter(|name| able.contains(name) && wanted.contains(&FROM));
        Self { suites: taken.map(|name| (*name).to_owned()).collect(), run: None }
    }

    /// Whether this suite runs here, and not in its turn.
    pub(super) fn takes(&self, suite: &str) -> bool {
        self.suites.iter().any(|taken| taken == suite)
    }

    /// Told of each suite before it runs; starts its own when their time has come.
    pub(super) fn begin_with(&mut self, suite: &str, runner: &[String]) -> Result<()> {
        if suite != FROM || self.suites.is_empty() {
            return Ok(());
        }
        eprintln!("\n== {} beside what follows", self.suites.join(", "));
        let said = File::create(said()?)?;
        let mut command = Command::new("chrt");
        command.args(["--idle", "0"]).arg(env::current_exe().context("finding xtask itself")?);
        command.arg("test").args(&self.suites).arg("--rows").arg(rows()?).arg("--").args(runner);
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said).current_dir(repo::root());
        // Rows of an earlier run are not taken for this one's.
        let _ = fs::remove_file(rows()?);
        self.run = Some(command.spawn().context("starting `chrt`, of the package util-linux")?);
        Ok(())
    }

    /// Waits for its suites, prints what they have said, and gives their rows.
    pub(super) fn end(self) -> Result<Vec<Row>> {
        let Some(mut run) = self.run else { return Ok(Vec::new()) };
        let status = run.wait().context("waiting for the suites that ran beside others")?;
        println!("\n{}", String::from_utf8_lossy(&fs::read(said()?)?).trim_end());
        let told: Vec<Row> =
            fs::read(rows()?).ok().and_then(|rows| serde_json::from_slice(&rows).ok()).unwrap_or_default();
        Ok(complete(&self.suites, told, &format!("it ended with {status} and told nothing of this suite")))
    }
}

/// A row of each suite: one that was not told of is broken.
fn complete(suites: &[String], mut told: Vec<Row>, why: &str) -> Vec<Row> {
    for suite in suites {
        if !told.iter().any(|(name, ..)| name == suite) {
            let outcome = Outcome { broken: Some(why.to_owned()), ..Outcome::default() };
            told.push((suite.clone(), outcome, Duration::ZERO));
        }
    }
    told
}

fn said() -> Result<PathBuf> {
    Ok(folder()?.join("beside.txt"))
}

fn rows() -> Result<PathBuf> {
    Ok(folder()?.join("beside.json"))
}

fn folder() -> Result<PathBuf> {
    let folder = repo::root().join("target/tmp");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Beside, complete};
    use crate::suites::{Outcome, Row};

    #[test]
    fn a_run_of_some_suites_is_one_after_the_other() {
        let all = Beside::of(&["lint", "unit", "capture", "kubernetes"], &["lint", "unit"]);
        assert!(all.takes("lint") && all.takes("unit") && !all.takes("capture") && !all.takes("kubernetes"));
        let some = Beside::of(&["lint", "capture"], &["lint", "unit"]);
        assert!(!some.takes("lint") && some.end().unwrap().is_empty());
    }

    #[test]
    fn a_suite_that_was_not_told_of_is_broken() {
        let told: Row = ("unit".to_owned(), Outcome { passed: 3, ..Outcome::default() }, Duration::ZERO);
        let rows = complete(&["lint".to_owned(), "unit".to_owned()], vec![told], "killed");
        assert_eq!(rows.len(), 2);
        let of = |suite: &str| &rows.iter().find(|(name, ..)| name == suite).unwrap().1;
        assert!(of("unit").is_good() && of("unit").passed == 3);
        assert!(!of("lint").is_good() && of("lint").broken.as_deref() == Some("killed"));
    }
}
