//! The ledger, read from the agent's Prometheus page.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

/// A sample's labels, in the page's order.
pub type Labels = BTreeMap<String, String>;

/// A Prometheus page in the text format.
#[derive(Clone, Debug)]
pub struct Page(Vec<(String, Labels, f64)>);

impl Page {
    /// Reads it.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| sample(line).with_context(|| format!("the line {line:?}"))).collect::<Result<_>>().map(Self)
    }

    /// All samples of a name.
    pub fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a Labels, f64)> + 'a {
        self.0.iter().filter(move |(of, ..)| of == name).map(|(_, labels, value)| (labels, *value))
    }

    /// Sum of the samples of a name that have all of these labels.
    #[must_use]
    pub fn sum(&self, name: &str, with: &[(&str, &str)]) -> f64 {
        let has = |labels: &Labels| with.iter().all(|(key, value)| labels.get(*key).is_some_and(|is| is == value));
        self.samples(name).filter(|(labels, _)| has(labels)).map(|(_, value)| value).sum()
    }
}

fn sample(line: &str) -> Result<(String, Labels, f64)> {
    let (head, value) = line.rsplit_once(' ').context("no value")?;
    let value = value.parse().context("the value")?;
    let Some((name, rest)) = head.split_once('{') else { return Ok((head.to_owned(), Labels::new(), value)) };
    let mut labels = Labels::new();
    let mut rest = rest.strip_suffix('}').context("no }")?;
    while let Some((key, after)) = rest.split_once("=\"") {
        let mut text = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next().context("no closing quote")? {
                (at, '"') => break at + 1,
                (_, '\\') => match characters.next().context("a lone backslash")?.1 {
                    'n' => text.push('\n'),
                    other => text.push(other),
                },
                (_, other) => text.push(other),
            }
        };
        labels.insert(key.trim_start_matches(',').to_owned(), text);
        rest = after.get(end..).unwrap_or_default();
    }
    Ok((name.to_owned(), labels, value))
}

/// `weir_messages_total` by stage; `lost` by reason, zeros left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Messages that came in.
    pub seen: u64,
    /// Messages that went on.
    pub delivered: u64,
    /// Messages that were not wanted.
    pub filtered: u64,
    /// Messages that are missing, with the reason.
    pub lost: BTreeMap<String, u64>,
}

impl Ledger {
    /// Reads it from a page.
    pub fn read(page: &Page) -> Result<Self> {
        let mut ledger = Self { seen: 0, delivered: 0, filtered: 0, lost: BTreeMap::new() };
        let mut rows = 0;
        for (labels, value) in page.samples("weir_messages_total") {
            rows += 1;
            let value = count(value);
            match labels.get("stage").map(String::as_str) {
                Some("seen") => ledger.seen += value,
                Some("delivered") => ledger.delivered += value,
                Some("filtered") => ledger.filtered += value,
                Some("lost") if value > 0 => {
                    let reason = labels.get("reason").context("a loss without its reason")?;
                    *ledger.lost.entry(reason.clone()).or_default() += value;
                }
                _ => {}
            }
        }
        ensure!(rows > 0, "the page has no weir_messages_total");
        Ok(ledger)
    }

    /// All losses.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.values().sum()
    }

    /// Whether everything seen is accounted for.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.seen == self.delivered + self.filtered + self.lost()
    }
}

/// A counter's value; the page writes integers as floating point.
#[must_use]
#[allow(clippy::cast_sign_loss, reason = "counters are never negative")]
pub fn count(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read() -> Result<()> {
        let page = Page::parse(concat!(
            "# TYPE weir_messages_total counter\n",
            "weir_messages_total{stage=\"seen\",reason=\"\"} 10\n",
            "weir_messages_total{stage=\"delivered\",reason=\"\"} 7\n",
            "weir_messages_total{stage=\"lost\",reason=\"ring_full\"} 3\n",
            "odd{a=\"x\\\"},y\",b=\"\"} 1.5\n",
            "plain 2\n",
        ))?;
        let ledger = Ledger::read(&page)?;
        assert!(ledger.balanced());
        assert_eq!((ledger.seen, ledger.delivered, ledger.lost()), (10, 7, 3));
        assert!((page.sum("odd", &[("a", "x\"},y")]) - 1.5).abs() < f64::EPSILON);
        assert!((page.sum("plain", &[]) - 2.0).abs() < f64::EPSILON);
        Ok(())
    }
}
