//! The figures, as a table to read and as a document to keep.

use serde::{Serialize, Serializer};

use super::{plan, sample::Samples};

/// A figure, measured several times.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    name: String,
    unit: &'static str,
    median: Option<f64>,
    samples: Samples,
    budget: Option<Budget>,
    met: Option<bool>,
    /// What else was measured and explains the figure.
    why: Option<String>,
}

/// What a median has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Budget {
    AtMost(f64),
    AtLeast(f64),
}

impl Budget {
    fn met(self, median: f64) -> bool {
        match self {
            Self::AtMost(limit) => median <= limit,
            Self::AtLeast(limit) => median >= limit,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("≤ {limit}"),
            Self::AtLeast(limit) => format!("≥ {limit}"),
        }
    }
}

impl Serialize for Budget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl Row {
    pub(crate) fn new(name: &str, unit: &'static str, samples: Samples, budget: Option<Budget>) -> Self {
        let median = samples.median();
        // A budget of what could not be measured is not met.
        let met = budget.map(|budget| median.is_some_and(|median| budget.met(median)));
        Self { name: name.to_owned(), unit, median, samples, budget, met, why: None }
    }

    /// Says with a missed budget what the figure is made of.
    pub(crate) fn because(mut self, why: String) -> Self {
        self.why = Some(why);
        self
    }

    fn line(&self) -> String {
        let unit = if self.unit.is_empty() { String::new() } else { format!(" {}", self.unit) };
        let median =
            self.median.map_or_else(|| "not measured".to_owned(), |median| format!("{}{unit}", number(median)));
        let spread = match self.samples.spread() {
            Some((least, greatest)) if self.samples.0.len() > 1 => format!("{} – {}", number(least), number(greatest)),
            _ => String::new(),
        };
        let budget = self.budget.map_or_else(String::new, Budget::text);
        let verdict = match (self.met, self.budget, self.median) {
            (None, ..) => String::new(),
            (Some(true), ..) => "met".to_owned(),
            (Some(false), Some(Budget::AtMost(limit) | Budget::AtLeast(limit)), Some(median)) => {
                format!("**missed by {}**", number((median - limit).abs()))
            }
            (Some(false), ..) => "**missed**".to_owned(),
        };
        let why = match &self.why {
            Some(why) if self.met == Some(false) && self.median.is_some() => format!(": {why}"),
            _ => String::new(),
        };
        format!("| {} | {median} | {spread} | {budget} | {verdict}{why} |", self.name)
    }
}

/// Three figures that count, more only of large numbers.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// All that was measured in a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: String,
    rounds: u32,
    seconds: u64,
    pub(crate) rows: Vec<Row>,
    /// Parts that broke off, with the error: their rows are missing.
    pub(crate) failed: Vec<String>,
}

impl Report {
    pub(crate) fn new(rounds: u32, seconds: u64) -> Self {
        Self { machine: plan::machine(), rounds, seconds, rows: Vec::new(), failed: Vec::new() }
    }
}

/// Prints the table as markdown; `short` leaves out what explains a figure and is no ratio, as README shows it.
pub(crate) fn print(report: &Report, short: bool) {
    println!("{}; {} interleaved rounds of {} s.\n", report.machine, report.rounds, report.seconds);
    println!("| what | median | least – greatest | budget | |");
    println!("|---|---|---|---|---|");
    let wanted = |row: &&Row| !short || row.budget.is_some() || row.name.starts_with("throughput");
    for row in report.rows.iter().filter(wanted) {
        println!("{}", row.line());
    }
    for failure in &report.failed {
        println!("\nNot measured: {failure}");
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, Row};
    use crate::bench::sample::Samples;

    #[test]
    fn a_row_says_by_how_much_it_misses() {
        let row = Row::new("p99", "", Samples(vec![1.2, 1.1, 1.3]), Some(Budget::AtMost(1.05)));
        assert_eq!(row.line(), "| p99 | 1.20 | 1.10 – 1.30 | ≤ 1.05 | **missed by 0.150** |");
        let row = Row::new("lost", "", Samples(vec![0.0]), Some(Budget::AtMost(0.0)));
        assert_eq!(row.line(), "| lost | 0 |  | ≤ 0 | met |");
    }

    #[test]
    fn only_a_missed_budget_says_why() {
        let row = |limit| Row::new("p", "", Samples(vec![2.0]), Some(Budget::AtMost(limit))).because("of x".to_owned());
        assert_eq!(row(1.0).line(), "| p | 2.00 |  | ≤ 1 | **missed by 1.00**: of x |");
        assert_eq!(row(2.0).line(), "| p | 2.00 |  | ≤ 2 | met |");
    }

    #[test]
    fn what_was_not_measured_has_met_nothing() {
        let row = Row::new("p99", "µs", Samples::default(), Some(Budget::AtMost(1.0)));
        assert_eq!(row.line(), "| p99 | not measured |  | ≤ 1 | **missed** |");
    }
}
