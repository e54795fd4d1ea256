//! What is measured, in which order, and the rows that come of it.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};

use weir_tests::ledger::count;

use super::{
    bulk,
    cost::{self, Runs, Statistics},
    enforce, golang, identity, load, memory,
    sample::Samples,
    start,
    table::{Budget, Report, Row, number},
    variant::{Collector, Round, Spent, Variant, Working},
};

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Throughput of all variants, the agent's processor time, losses
    Throughput,
    /// Time inside the kernel's programs
    Kernel,
    /// 99th percentile at half load
    Latency,
    /// Bulk bytes that are no calls
    Bulk,
    /// A Go client whose goroutines are followed
    Goroutines,
    /// What the gate costs, how soon a rule counts, a flood of refused connections
    Enforce,
    /// Memory with 10 000 connections
    Memory,
    /// Start to first call
    Start,
    /// 10 000 processes and the metadata of 5 000 pods
    Identity,
}

/// Measures the wanted parts; none means all. A part that breaks off is noted and the others go on.
pub(crate) fn measure(rounds: u32, seconds: u64, parts: &[Part]) -> Result<Report> {
    let time = Duration::from_secs(seconds);
    let collector = Collector::start()?;
    let mut report = Report::new(rounds, seconds);
    for part in [
        Part::Kernel,
        Part::Throughput,
        Part::Latency,
        Part::Bulk,
        Part::Goroutines,
        Part::Enforce,
        Part::Memory,
        Part::Start,
        Part::Identity,
    ] {
        if !parts.is_empty() && !parts.contains(&part) {
            continue;
        }
        let done = match part {
            Part::Kernel => kernel(rounds, time, &collector, &mut report),
            Part::Throughput => throughput(rounds, time, &collector, &mut report),
            Part::Latency => latency(rounds, time, &collector, &mut report),
            Part::Bulk => bulk::rows(rounds, time, &collector, &mut report),
            Part::Goroutines => golang::rows(rounds, time, &mut report),
            Part::Enforce => enforce::rows(rounds, time, &mut report),
            Part::Memory => memory_rows(time.max(Duration::from_secs(10)), &collector, &mut report),
            Part::Start => start_row(rounds, &mut report),
            Part::Identity => identity::rows(rounds, &mut report),
        };
        if let Err(error) = done {
            eprintln!("bench: {part:?} broke off: {error:#}");
            report.failed.push(format!("{part:?}: {error:#}"));
        }
    }
    Ok(report)
}

fn start_row(rounds: u32, report: &mut Report) -> Result<()> {
    let samples = (0..rounds).map(|_| start::first_call()).collect::<Result<Vec<_>>>()?;
    report.rows.push(Row::new("start to first call", "s", Samples(samples), Some(Budget::AtMost(1.0))));
    Ok(())
}

/// The variants in turn, forwards in even rounds and backwards in odd ones, so that a drift of the machine falls on
/// all alike.
fn in_turn<T: Copy>(variants: &[T], round: u32) -> Vec<T> {
    let mut variants = variants.to_vec();
    if round % 2 == 1 {
        variants.reverse();
    }
    variants
}

fn say(round: u32, rounds: u32, variant: Variant, what: &str) {
    eprintln!("bench: round {} of {rounds}: {}: {what}", round + 1, variant.name());
}

fn throughput(rounds: u32, time: Duration, collector: &Collector, report: &mut Report) -> Result<()> {
    let mut all: BTreeMap<Variant, Vec<Round>> = BTreeMap::new();
    for round in 0..rounds {
        for variant in in_turn(&Variant::ALL, round) {
            let measured = Working::start(variant, collector)?.saturate(time).with_context(|| variant.name())?;
            say(round, rounds, variant, &format!("{:.0} requests/s", measured.per_second));
            all.entry(variant).or_default().push(measured);
        }
    }
    let rates = |variant: Variant| {
        Samples(all.get(&variant).into_iter().flatten().map(|round| round.per_second).collect::<Vec<_>>())
    };
    let bare = rates(Variant::Bare);
    report.rows.push(Row::new("throughput with nothing attached", "requests/s", bare.clone(), None));
    for variant in Variant::ALL.into_iter().filter(|variant| *variant != Variant::Bare) {
        let budget = (variant == Variant::Sampled).then_some(Budget::AtLeast(0.92));
        let name = format!("throughput, {} / nothing attached", variant.name());
        let row = Row::new(&name, "", rates(variant).over(&bare), budget);
        let why = || shared(&rates(variant), &bare, all.get(&variant));
        report.rows.push(if budget.is_some() { row.because(why()) } else { row });
    }
    for (variant, budget) in [(Variant::Kept, 1.0), (Variant::Sampled, f64::NAN), (Variant::Spans, 3.0)] {
        let spent = || all.get(&variant).into_iter().flatten().filter_map(|round| Some((round, round.spent.as_ref()?)));
        let cpu = spent().map(|(_, spent)| spent.cpu() * 1e6 / spent.calls as f64).collect();
        let budget = (!budget.is_nan()).then_some(Budget::AtMost(budget));
        let name = format!("agent's processor time a call, {}", variant.name());
        let row = Row::new(&name, "µs", Samples(cpu), budget);
        report.rows.push(row.because(by_thread(spent().map(|(_, spent)| spent))));
        let lost = spent().map(|(_, spent)| spent.lost as f64).collect();
        let name = format!("messages lost at that load, {}", variant.name());
        report.rows.push(Row::new(&name, "", Samples(lost), Some(Budget::AtMost(0.0))));
        // Both ends are here, so each request is two calls; what was in flight at the end is none.
        let seen = spent().map(|(round, spent)| spent.calls as f64 / (2.0 * round.requests as f64)).collect();
        report.rows.push(Row::new(
            &format!("calls / (2 × wrk's requests), {}", variant.name()),
            "",
            Samples(seen),
            None,
        ));
    }
    Ok(())
}

fn kernel(rounds: u32, time: Duration, collector: &Collector, report: &mut Report) -> Result<()> {
    let statistics = Statistics::on()?;
    // Microseconds a request on both sides together.
    let mut sums: BTreeMap<Variant, Samples> = BTreeMap::new();
    let mut programs: BTreeMap<String, Vec<(Runs, u64)>> = BTreeMap::new();
    for round in 0..rounds {
        for variant in in_turn(&[Variant::Noop, Variant::Kept], round) {
            let working = Working::start(variant, collector)?;
            let before = cost::programs()?;
            let measured = working.saturate(time)?;
            let added = cost::since(&cost::programs()?, &before);
            ensure!(!added.is_empty(), "{}: no program ran", variant.name());
            let ns: u64 = added.values().map(|runs| runs.ns).sum();
            sums.entry(variant).or_default().push(ns as f64 / 1000.0 / measured.requests as f64);
            say(
                round,
                rounds,
                variant,
                &format!("{:.0} ns in programs a request", ns as f64 / measured.requests as f64),
            );
            for (name, runs) in added {
                programs.entry(name).or_default().push((runs, measured.requests));
            }
        }
    }
    drop(statistics);
    let of = |variant| sums.get(&variant).cloned().unwrap_or_default();
    let (noop, kept) = (of(Variant::Noop), of(Variant::Kept));
    let over = kept.0.iter().zip(&noop.0).map(|(kept, noop)| (kept - noop) / 2.0).collect();
    let run = |name: &str| {
        let each = programs.get(name)?.iter().map(|(runs, _)| runs.ns as f64 / runs.count as f64).collect();
        Samples(each).median().map(|ns| format!("{name} {} ns", number(ns)))
    };
    let runs = ["weir_ingress", "weir_egress", "weir_noop_ingress", "weir_noop_egress"].into_iter().filter_map(run);
    let row = Row::new(
        "in-kernel time an exchange, one side, over no-op programs",
        "µs",
        Samples(over),
        Some(Budget::AtMost(0.5)),
    );
    report.rows.push(row.because(format!("a run of {}", runs.collect::<Vec<_>>().join(", of "))));
    for (name, measured) in programs {
        let each = measured.iter().map(|(runs, _)| runs.ns as f64 / runs.count as f64).collect();
        report.rows.push(Row::new(&format!("a run of {name}"), "ns", Samples(each), None));
        let often = measured.iter().map(|(runs, requests)| runs.count as f64 / *requests as f64).collect();
        report.rows.push(Row::new(&format!("runs of {name} a request, both sides"), "", Samples(often), None));
    }
    Ok(())
}

fn latency(rounds: u32, time: Duration, collector: &Collector, report: &mut Report) -> Result<()> {
    // Half of what this load can ask for: it has one thread, and is slower than the one that saturates.
    let most = {
        let working = Working::start(Variant::Bare, collector)?;
        load::constant(working.server.address(), None, Duration::from_secs(3))?.per_second
    };
    let rate = count(most / 2.0);
    let variants = [Variant::Bare, Variant::Noop, Variant::Kept, Variant::Sampled];
    let mut all: BTreeMap<Variant, (Samples, Samples)> = BTreeMap::new();
    for round in 0..rounds {
        for variant in in_turn(&variants, round) {
            let working = Working::start(variant, collector)?;
            let before = cost::Ticks::now()?;
            let measured = load::constant(working.server.address(), Some(rate), time)?;
            let busy = cost::Ticks::now()?.since(before);
            say(
                round,
                rounds,
                variant,
                &format!(
                    "p99 {:.0} µs at {:.0} requests/s, cores {:.0} % busy",
                    measured.p99,
                    measured.per_second,
                    busy * 100.0
                ),
            );
            let samples = all.entry(variant).or_default();
            samples.0.push(measured.p99);
            samples.1.push(busy * 100.0);
        }
    }
    let of = |variant: Variant| all.get(&variant).cloned().unwrap_or_default();
    let mut told = Vec::new();
    for variant in variants {
        let (p99, busy) = of(variant);
        if let (Some(p99), Some(busy)) = (p99.median(), busy.median()) {
            told.push(format!("{p99:.0} µs and {busy:.0} % of the cores busy with {}", variant.name()));
        }
        let name = format!("p99 at half load ({rate} requests/s), {}", variant.name());
        report.rows.push(Row::new(&name, "µs", p99, None));
    }
    let ratio = of(Variant::Sampled).0.over(&of(Variant::Bare).0);
    let row = Row::new("p99 at half load, with / without", "", ratio, Some(Budget::AtMost(1.05)));
    report.rows.push(row.because(told.join(", ")));
    Ok(())
}

fn memory_rows(time: Duration, collector: &Collector, report: &mut Report) -> Result<()> {
    let memory = memory::measure(time, collector)?;
    eprintln!("bench: {memory:?}");
    let one = |name: &str, unit: &'static str, value: f64, limit| {
        Row::new(name, unit, Samples(vec![value]), Some(Budget::AtMost(limit)))
    };
    report.rows.push(one("memory at the start, highest", "MiB", memory.start, 96.0));
    let name = format!(
        "resident memory, the ring left out, with 10 000 connections, {:.0} requests/s and a store of {} MiB",
        memory.per_second,
        memory::STORE
    );
    let highest = memory.load.spread().map_or(f64::NAN, |(_, highest)| highest);
    // A single peak is told from what stays.
    let why = format!(
        "the highest of {} looks; their median is {}, the last {}",
        memory.load.0.len(),
        memory.load.median().map_or_else(|| "unknown".to_owned(), number),
        memory.load.0.last().copied().map_or_else(|| "unknown".to_owned(), number)
    );
    report.rows.push(one(&name, "MiB", highest, 64.0).because(why));
    report.rows.push(one("memory of the maps", "MiB", memory.maps, 32.0));
    report.rows.push(one("messages lost with 10 000 connections", "", memory.lost as f64, 0.0));
    Ok(())
}

/// What a request takes of the cores, what the budget leaves, and what the agent takes.
fn shared(rates: &Samples, bare: &Samples, rounds: Option<&Vec<Round>>) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let each = |rates: &Samples| rates.median().map_or(f64::NAN, |rate| cores * 1e6 / rate);
    let (alone, with) = (each(bare), each(rates));
    let spent = rounds.into_iter().flatten().filter_map(|round| Some((round.requests as f64, round.spent.as_ref()?)));
    let agent = Samples(spent.map(|(requests, spent)| spent.cpu() * 1e6 / requests).collect());
    let agent = agent.median().unwrap_or(f64::NAN);
    format!(
        "a request takes {alone:.1} µs of the cores with nothing attached, of which the budget leaves {:.1} µs; Weir adds {:.1} µs for its two calls: the agent {agent:.1} µs, its programs and what both push out of the caches the rest",
        alone / 0.92 - alone,
        with - alone
    )
}

/// What the agent's threads spend on a call, the greatest first.
fn by_thread<'a>(spent: impl Iterator<Item = &'a Spent>) -> String {
    let mut threads: BTreeMap<&str, Samples> = BTreeMap::new();
    for spent in spent {
        for (name, seconds) in &spent.threads {
            threads.entry(name).or_default().push(seconds * 1e6 / spent.calls as f64);
        }
    }
    let mut medians: Vec<_> = threads
        .into_iter()
        .filter_map(|(name, each)| Some((name, each.median().filter(|each| *each >= 0.01)?)))
        .collect();
    medians.sort_by(|one, other| other.1.total_cmp(&one.1));
    medians.iter().map(|(name, each)| format!("{name} {each:.2} µs")).collect::<Vec<_>>().join(", ")
}

/// What the figures were measured on.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease");
    let information = read("/proc/cpuinfo");
    let model =
        information.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("Linux {}, {cores} cores, {}", release.trim(), model.unwrap_or("unknown processor"))
}

#[cfg(test)]
mod tests {
    use super::in_turn;

    #[test]
    fn every_second_round_goes_backwards() {
        assert_eq!(in_turn(&[1, 2, 3], 0), [1, 2, 3]);
        assert_eq!(in_turn(&[1, 2, 3], 1), [3, 2, 1]);
    }
}
