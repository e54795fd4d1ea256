//! What programs of the kernel and a process cost, as the kernel counts it.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::shell;

/// Switch of the kernel's run-time statistics; they cost some 40 ns a run, hence they are off while anything else
/// is measured.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Statistics switched on; as before when dropped.
pub(crate) struct Statistics(String);

impl Statistics {
    pub(crate) fn on() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("reading {SWITCH}"))?;
        fs::write(SWITCH, "1").with_context(|| format!("writing {SWITCH}"))?;
        Ok(Self(before))
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, self.0.trim()) {
            eprintln!("bench: {SWITCH} stays 1: {error}");
        }
    }
}

/// Runs of a program and the time they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Runs {
    pub(crate) count: u64,
    pub(crate) ns: u64,
}

/// Runs of all programs of Weir that are loaded now, by name.
pub(crate) fn programs() -> Result<BTreeMap<String, Runs>> {
    parse(&shell::output(Command::new("bpftool").args(["prog", "show", "-j"]).env("PATH", shell::path()))?)
}

fn parse(text: &str) -> Result<BTreeMap<String, Runs>> {
    let list: Vec<serde_json::Value> = serde_json::from_str(text).context("reading what bpftool said")?;
    let mut programs: BTreeMap<String, Runs> = BTreeMap::new();
    for program in list {
        let Some(name) = program["name"].as_str().filter(|name| name.starts_with("weir_")) else { continue };
        let number = |key: &str| program[key].as_u64().unwrap_or(0);
        let runs = programs.entry(name.to_owned()).or_default();
        runs.count += number("run_cnt");
        runs.ns += number("run_time_ns");
    }
    Ok(programs)
}

/// What was added between two looks.
pub(crate) fn since(after: &BTreeMap<String, Runs>, before: &BTreeMap<String, Runs>) -> BTreeMap<String, Runs> {
    let of = |name: &String| before.get(name).copied().unwrap_or_default();
    let added = |(name, runs): (&String, &Runs)| {
        let before = of(name);
        (name.clone(), Runs { count: runs.count - before.count, ns: runs.ns - before.ns })
    };
    after.iter().map(added).filter(|(_, runs)| runs.count > 0).collect()
}

/// Seconds that the threads of a process have run, in themselves and in the kernel, by thread name; exact to the
/// nanosecond, where `/proc/PID/stat` counts ticks. Threads that ended do not count: the agent's workers live as long
/// as it.
pub(crate) fn processor_time(pid: u32) -> Result<BTreeMap<String, f64>> {
    let mut seconds = BTreeMap::new();
    let folder = format!("/proc/{pid}/task");
    for thread in fs::read_dir(&folder).with_context(|| format!("reading {folder}"))? {
        let thread = thread?.path();
        let name = fs::read_to_string(thread.join("comm")).context("reading a thread's comm")?;
        let text = fs::read_to_string(thread.join("schedstat")).context("reading a thread's schedstat")?;
        let nanoseconds =
            text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).context("no time in schedstat")?;
        *seconds.entry(name.trim().to_owned()).or_default() += nanoseconds as f64 / 1e9;
    }
    Ok(seconds)
}

/// What the processors have done since they started, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticks {
    busy: u64,
    all: u64,
}

impl Ticks {
    pub(crate) fn now() -> Result<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").context("reading /proc/stat")?)
    }

    /// The first line: user, nice, system, idle, iowait, irq, softirq, steal (`proc_stat(5)`).
    fn parse(text: &str) -> Result<Self> {
        let words = text.lines().next().unwrap_or_default().split_ascii_whitespace().skip(1).take(8);
        let ticks: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        let (idle, all) = (ticks.iter().skip(3).take(2).sum::<u64>(), ticks.iter().sum());
        anyhow::ensure!(ticks.len() == 8, "/proc/stat begins with {:?}", text.lines().next());
        Ok(Self { busy: all - idle, all })
    }

    /// The busy part of the time since an earlier look.
    pub(crate) fn since(self, before: Self) -> f64 {
        (self.busy - before.busy) as f64 / (self.all - before.all).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::{Runs, Ticks, parse, since};

    #[test]
    fn the_busy_part_is_what_was_neither_idle_nor_waited() {
        let at = |text| Ticks::parse(text).expect("a line of eight numbers");
        let (before, after) = (at("cpu  10 0 10 100 20 0 5 0 0 0\ncpu0 1\n"), at("cpu  20 5 10 130 30 0 10 0 0 0\n"));
        assert!((after.since(before) - 20.0 / 60.0).abs() < 1e-9);
        assert!(Ticks::parse("intr 5").is_err());
    }

    #[test]
    fn only_weir_s_programs_count_and_only_what_was_added() {
        let before =
            parse(r#"[{"id":1,"name":"weir_egress","run_time_ns":100,"run_cnt":2},{"id":2,"name":"sd_devices"}]"#);
        let after =
            parse(r#"[{"id":1,"name":"weir_egress","run_time_ns":700,"run_cnt":5},{"id":3,"name":"weir_ingress"}]"#);
        let added = since(&after.expect("JSON"), &before.expect("JSON"));
        assert_eq!(added.into_iter().collect::<Vec<_>>(), [("weir_egress".to_owned(), Runs { count: 3, ns: 600 })]);
    }
}
