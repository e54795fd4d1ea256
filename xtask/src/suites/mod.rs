//! `cargo xtask test`: the suites in order, a closing line of each, and a table at the end.

mod beside;

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, IsTerminal as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use self::beside::Beside;
use crate::{
    lint, repo, run,
    setup::{self, Stage},
    shell,
};

/// The order of the suites that are known; others follow by name. What fails fast comes first, unless it runs beside
/// others.
const ORDER: &[&str] = &[
    "lint",
    "unit",
    "peers",
    "programs",
    "capture",
    "graph",
    "names",
    "hops",
    "identity",
    "traces",
    "otlp",
    "prometheus",
    "kubernetes",
    "node",
    "canary",
    "config",
    "refusals",
    "cli",
    "top",
    "policy",
    "feeds",
    "enforce",
    "failopen",
];

/// What cargo is told of suites that are integration tests.
const SUITES: [&str; 3] = ["--release", "--package", "weir-tests"];

/// Suites that need neither root nor peers.
const WITHOUT_PEERS: &[&str] = &["lint", "unit"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Suites to run; none: all. `lint`, `unit`, or a file or folder of tests/tests
    suites: Vec<String>,
    /// Writes its rows there, for the run that has started this one
    #[arg(long, hide = true)]
    rows: Option<PathBuf>,
    /// Handed to the suite's test runner: names, `--nocapture`, `--ignored`
    #[arg(last = true)]
    runner: Vec<String>,
}

/// How a suite ended.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Outcome {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Marked `#[ignore]` with their reason.
    pub(crate) skipped: u64,
    /// The runner said so, or never got to say how many failed.
    pub(crate) broken: Option<String>,
    /// Tests that failed, and then passed alone: counted as passed, and named.
    pub(crate) again: Vec<String>,
}

impl Outcome {
    fn is_good(&self) -> bool {
        self.broken.is_none() && self.failed == 0 && self.passed > 0
    }

    fn and(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
            broken: self.broken.or(other.broken),
            again: [self.again, other.again].concat(),
        }
    }

    fn line(&self) -> String {
        let skipped = if self.skipped > 0 { format!(", {} skipped", self.skipped) } else { String::new() };
        let again = match self.again.as_slice() {
            [] => String::new(),
            names => format!(" ({} at the second try: {})", names.len(), names.join(", ")),
        };
        format!("{} passed{again}, {} failed{skipped}", self.passed, self.failed)
    }
}

/// A suite, how it ended, and how long it took.
type Row = (String, Outcome, Duration);

pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let all = all()?;
    let wanted: Vec<&str> = if arguments.suites.is_empty() {
        all.iter().map(String::as_str).collect()
    } else {
        arguments.suites.iter().map(String::as_str).collect()
    };
    if let Some(unknown) = wanted.iter().find(|name| !all.iter().any(|known| known == *name)) {
        bail!("no suite named {unknown}; there are {}", all.join(", "));
    }
    let begin = Instant::now();
    let needs_peers = wanted.iter().any(|name| !WITHOUT_PEERS.contains(name));
    if needs_peers && !shell::is_root() {
        bail!("tests on the real kernel need root; without: cargo xtask test {}", WITHOUT_PEERS.join(" "));
    }
    setup::prepare(if needs_peers { Stage::Test } else { Stage::Run })?;
    if needs_peers {
        run::build()?;
        build(&wanted)?;
    }
    let mut beside = Beside::of(&wanted, WITHOUT_PEERS);
    let mut rows: Vec<Row> = Vec::new();
    for &name in &wanted {
        if beside.takes(name) {
            continue;
        }
        beside.begin_with(name, &arguments.runner)?;
        eprintln!("\n== {name}");
        let begin = Instant::now();
        let mut outcome = suite(name, &arguments.runner)
            .unwrap_or_else(|error| Outcome { broken: Some(format!("{error:#}")), ..Outcome::default() });
        if outcome.broken.is_none() && outcome.passed + outcome.failed == 0 {
            outcome.broken = Some("no test ran".to_owned());
        }
        println!("{name}: {}", outcome.line());
        rows.push((name.to_owned(), outcome, begin.elapsed()));
    }
    rows.extend(beside.end()?);
    if let Some(path) = &arguments.rows {
        fs::write(path, serde_json::to_vec(&rows)?).with_context(|| format!("writing {}", path.display()))?;
    }
    report(&rows, begin.elapsed())
}

/// Builds suites at once, which takes half the time of one after the other.
fn build(wanted: &[&str]) -> Result<()> {
    let begin = Instant::now();
    let mut command = Command::new("cargo");
    command.args(["test", "--quiet", "--no-run"]).args(SUITES);
    for suite in wanted.iter().filter(|name| !WITHOUT_PEERS.contains(name)) {
        command.args(["--test", suite]);
    }
    shell::compiled(&mut command);
    shell::run(command.env("PATH", shell::path()).current_dir(repo::root()))?;
    eprintln!("build: the suites ({:.1} s)", begin.elapsed().as_secs_f32());
    Ok(())
}

/// The suites of this checkout in their order.
fn all() -> Result<Vec<String>> {
    let folder = repo::root().join("tests/tests");
    let mut found: BTreeSet<String> = BTreeSet::new();
    if folder.exists() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            let is_suite = path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").exists();
            if let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| is_suite) {
                found.insert(stem.to_owned());
            }
        }
    }
    Ok(in_order(found))
}

fn in_order(mut found: BTreeSet<String>) -> Vec<String> {
    found.extend(WITHOUT_PEERS.iter().map(|name| (*name).to_owned()));
    let known = ORDER.iter().filter_map(|name| found.take(*name)).collect::<Vec<_>>();
    known.into_iter().chain(found).collect()
}

fn suite(name: &str, runner: &[String]) -> Result<Outcome> {
    match name {
        "lint" => Ok(lint::outcome()),
        // In the profile that checks arithmetic for overflow.
        "unit" => {
            let most =
                ["--workspace", "--exclude", "weir-ebpf", "--exclude", "weir-tests", "--lib", "--bins", "--tests"];
            // The integration targets of this one are suites of their own.
            let harness = ["--package", "weir-tests", "--lib"];
            Ok(cargo_test(&most, runner)?.and(cargo_test(&harness, runner)?))
        }
        name => {
            let mut runner = runner.to_vec();
            runner.push(format!("--test-threads={}", threads(name)?));
            cargo_test(&[&SUITES[..], &["--test", name]].concat(), &runner)
        }
    }
}

/// A suite runs its tests one by one, as most watch the whole node; one that does not says so in its head:
/// `//! test-threads: 4`.
fn threads(name: &str) -> Result<usize> {
    let folder = repo::root().join("tests/tests").join(name);
    let file = if folder.is_dir() { folder.join("main.rs") } else { folder.with_extension("rs") };
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let Some(number) = text.lines().find_map(|line| line.strip_prefix("//! test-threads: ")) else { return Ok(1) };
    number.trim().parse().with_context(|| format!("{}: test-threads: {number}", file.display()))
}

/// A run of `cargo test`; tests that fail get a second try. Several at once are no accident of a busy machine.
fn cargo_test(selection: &[&str], runner: &[String]) -> Result<Outcome> {
    const MOST: usize = 3;
    let first = once(selection, runner)?;
    let failed = first.outcome.failed;
    if failed == 0 || first.outcome.broken.is_some() || failed != first.names.len() as u64 || first.names.len() > MOST {
        return Ok(first.outcome);
    }
    eprintln!("second try: {}", first.names.join(", "));
    let mut only: Vec<String> = runner.iter().filter(|argument| argument.starts_with("--")).cloned().collect();
    only.push("--exact".to_owned());
    only.extend(first.names.iter().cloned());
    let second = once(selection, &only)?;
    let mut outcome = first.outcome;
    if second.outcome.failed == 0 && second.outcome.passed == failed {
        outcome.passed += failed;
        outcome.failed = 0;
        outcome.again = first.names;
    }
    Ok(outcome)
}

/// What a run of `cargo test` ended with.
struct Tried {
    outcome: Outcome,
    /// Tests that failed.
    names: Vec<String>,
}

fn once(selection: &[&str], runner: &[String]) -> Result<Tried> {
    let mut command = Command::new("cargo");
    command.args(["test", "--quiet", "--no-fail-fast"]).args(selection);
    command.arg("--").args(runner);
    command.env("PATH", shell::path()).env("WEIR_BIN", repo::weir()).current_dir(repo::root());
    if std::io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no output")?;
    let (mut outcome, mut names) = (Outcome::default(), Names::default());
    for line in BufReader::new(stdout).lines() {
        let line = line.context("reading what cargo test prints")?;
        println!("{line}");
        count(&line, &mut outcome);
        names.line(&line);
    }
    let status = child.wait().context("waiting for cargo test")?;
    if !status.success() && outcome.failed == 0 {
        outcome.broken = Some(format!("cargo test ended with {status}"));
    }
    Ok(Tried { outcome, names: names.found })
}

/// Reads the names of failed tests: a list under `failures:`, four spaces before each.
#[derive(Default)]
struct Names {
    listing: bool,
    found: Vec<String>,
}

impl Names {
    fn line(&mut self, line: &str) {
        match line.strip_prefix("    ").filter(|name| self.listing && !name.contains(char::is_whitespace)) {
            Some(name) => self.found.push(name.to_owned()),
            None => self.listing = line == "failures:",
        }
    }
}

/// Adds up `test result: ok. 12 passed; 0 failed; 1 ignored; …`.
fn count(line: &str, outcome: &mut Outcome) {
    let Some((_, counts)) = line.split_once("test result: ") else { return };
    for part in counts.split(['.', ';']) {
        let mut words = part.split_whitespace();
        if let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) {
            match what {
                "passed" => outcome.passed += number,
                "failed" => outcome.failed += number,
                "ignored" => outcome.skipped += number,
                _ => {}
            }
        }
    }
}

fn report(rows: &[Row], total: Duration) -> Result<()> {
    println!("\n{:<16}{:>8}{:>8}{:>9}{:>10}", "suite", "passed", "failed", "skipped", "seconds");
    let mut sum = Outcome::default();
    for (name, outcome, time) in rows {
        let reason = outcome.broken.as_deref().unwrap_or("");
        println!(
            "{name:<16}{:>8}{:>8}{:>9}{:>10.1}  {reason}",
            outcome.passed,
            outcome.failed,
            outcome.skipped,
            time.as_secs_f32()
        );
        sum.passed += outcome.passed;
        sum.failed += outcome.failed;
        sum.skipped += outcome.skipped;
        sum.again.extend(outcome.again.iter().map(|test| format!("{name}::{test}")));
    }
    println!("{} suites in {:.0} s", rows.len(), total.as_secs_f32());
    println!("total: {}", sum.line());
    let bad: Vec<&str> =
        rows.iter().filter(|(_, outcome, _)| !outcome.is_good()).map(|(name, ..)| name.as_str()).collect();
    if !bad.is_empty() {
        bail!("not passed: {}", bad.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Names, Outcome, count, in_order};

    #[test]
    fn closing_lines_are_added_up_and_other_lines_are_not() {
        let mut outcome = Outcome::default();
        for line in [
            "running 3 tests",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.02s",
            "12 passed in a message of a test",
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
        ] {
            count(line, &mut outcome);
        }
        assert_eq!(outcome, Outcome { passed: 14, failed: 3, skipped: 1, ..Outcome::default() });
    }

    #[test]
    fn failed_tests_are_named_by_the_closing_list() {
        let mut names = Names::default();
        for line in [
            "failures:",
            "",
            "---- one stdout ----",
            "    indented output",
            "",
            "failures:",
            "    one",
            "    group::two",
            "",
            "    not_a_name",
        ] {
            names.line(line);
        }
        assert_eq!(names.found, ["one", "group::two"]);
    }

    #[test]
    fn a_second_try_is_told() {
        let outcome = Outcome { passed: 3, again: vec!["one".to_owned()], ..Outcome::default() };
        assert_eq!(outcome.line(), "3 passed (1 at the second try: one), 0 failed");
        assert!(outcome.is_good());
    }

    #[test]
    fn a_suite_that_ran_nothing_is_not_good() {
        assert!(!Outcome::default().is_good());
        assert!(Outcome { passed: 1, ..Outcome::default() }.is_good());
        assert!(!Outcome { passed: 1, failed: 1, ..Outcome::default() }.is_good());
    }

    #[test]
    fn known_suites_keep_their_order_and_new_ones_follow() {
        let found = ["zebra", "cli", "alpha", "capture"].map(str::to_owned).into();
        assert_eq!(in_order(found), ["lint", "unit", "capture", "cli", "alpha", "zebra"]);
    }
}
