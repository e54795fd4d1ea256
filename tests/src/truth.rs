//! Comparing what Weir shows with what the applications know, exactly.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{Debug, Write};

use anyhow::{Context, Result, bail, ensure};

use crate::call::{Call, Kind};

/// What a call was, in the terms that both an application and Weir can tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// Method as sent.
    pub method: String,
    /// Path; empty below privacy level `standard`.
    pub path: String,
    /// Final status.
    pub status: Option<u16>,
    /// Content bytes of the request.
    pub request: Option<u64>,
    /// Content bytes of the response.
    pub response: Option<u64>,
    /// How it ended.
    pub end: String,
    /// `error.type`.
    pub error: Option<String>,
    /// A head was cut.
    pub truncated: bool,
}

impl Row {
    /// A whole call.
    #[must_use]
    pub fn new(method: &str, path: &str, status: u16, request: u64, response: u64) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            status: Some(status),
            request: Some(request),
            response: Some(response),
            end: "complete".to_owned(),
            error: None,
            truncated: false,
        }
    }

    /// The same with another end.
    #[must_use]
    pub fn ended(mut self, end: &str, error: Option<&str>) -> Self {
        end.clone_into(&mut self.end);
        self.error = error.map(str::to_owned);
        self
    }

    /// What Weir says; an `error.type` that only repeats the status (semantic conventions ask for it from 400 on
    /// client spans, from 500 on server spans) is left out, so that both sides' rows can be equal.
    #[must_use]
    pub fn of(call: &Call) -> Self {
        let attributes = &call.attributes;
        let repeated = |error: &String| attributes.status.is_some_and(|status| *error == status.to_string());
        Self {
            method: call.method().to_owned(),
            path: attributes.path.clone().unwrap_or_default(),
            status: attributes.status,
            request: attributes.request_body,
            response: attributes.response_body,
            end: call.end.clone(),
            error: attributes.error.clone().filter(|error| !repeated(error)),
            truncated: call.truncated,
        }
    }
}

/// Calls by side.
#[derive(Clone, Debug, Default)]
pub struct Sides {
    /// Seen from the client's end.
    pub client: Vec<Call>,
    /// Seen from the server's end.
    pub server: Vec<Call>,
}

impl Sides {
    /// Sorts calls by side, keeping their order.
    #[must_use]
    pub fn of(calls: Vec<Call>) -> Self {
        let (client, server) = calls.into_iter().partition(|call| call.kind == Kind::Client);
        Self { client, server }
    }

    /// Both sides show exactly `expected`, in this order on each connection; `expected` is of one connection or of
    /// connections made one after another.
    pub fn are(&self, expected: &[Row]) -> Result<()> {
        same("the server's end", &rows(&self.server), expected)?;
        same("the client's end", &rows(&self.client), expected)?;
        self.linked()
    }

    /// Both sides show exactly `expected`, in any order.
    pub fn are_in_any_order(&self, expected: &[Row]) -> Result<()> {
        let sorted = |mut rows: Vec<Row>| {
            rows.sort();
            rows
        };
        let expected = sorted(expected.to_vec());
        same("the server's end", &sorted(rows(&self.server)), &expected)?;
        same("the client's end", &sorted(rows(&self.client)), &expected)?;
        self.linked()
    }

    /// Span ids are unique; every server call's parent is the client call over the same two sockets in the same place,
    /// in the same trace; each client call is the parent of one server call.
    pub fn linked(&self) -> Result<()> {
        unique_spans(self.client.iter().chain(&self.server))?;
        let clients: HashMap<&str, &Call> = self.client.iter().map(|call| (call.span_id.as_str(), call)).collect();
        let mut parents = BTreeSet::new();
        for server in &self.server {
            let parent = server.parent_span_id.as_deref().with_context(|| format!("no parent: {server:?}"))?;
            let client = clients.get(parent).with_context(|| format!("the parent is no client call: {server:?}"))?;
            ensure!(
                client.trace_id == server.trace_id
                    && client.client().port() == server.client().port()
                    && Row::of(client) == Row::of(server),
                "linked, but not the same call:\n{client:?}\n{server:?}"
            );
            ensure!(parents.insert(parent), "two server calls have the parent {parent}");
        }
        ensure!(
            self.client.len() == self.server.len(),
            "{} client calls, {} server calls",
            self.client.len(),
            self.server.len()
        );
        Ok(())
    }
}

/// No span id is there twice.
pub fn unique_spans<'a>(calls: impl Iterator<Item = &'a Call>) -> Result<()> {
    let mut seen = HashMap::new();
    for call in calls {
        if let Some(first) = seen.insert(call.span_id.as_str(), call) {
            bail!("two calls with the same span id:\n{first:?}\n{call:?}");
        }
    }
    Ok(())
}

/// Rows of calls, in their order.
#[must_use]
pub fn rows(calls: &[Call]) -> Vec<Row> {
    calls.iter().map(Row::of).collect()
}

/// Two lists are equal; the error shows where they part and what each has more of.
pub fn same<T: Debug + Ord>(what: &str, found: &[T], expected: &[T]) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let mut text = format!("{what}: {} found, {} expected", found.len(), expected.len());
    if let Some(at) = (0..found.len().max(expected.len())).find(|&at| found.get(at) != expected.get(at)) {
        write!(text, "\nfirst difference at {at}:\n  found    {:?}\n  expected {:?}", found.get(at), expected.get(at))?;
    }
    let mut counts: BTreeMap<&T, i64> = BTreeMap::new();
    for row in found {
        *counts.entry(row).or_default() += 1;
    }
    for row in expected {
        *counts.entry(row).or_default() -= 1;
    }
    let uneven = counts.iter().filter(|(_, count)| **count != 0);
    for (row, count) in uneven.skip(usize::from(found.len().max(expected.len()) == 1) * 2).take(12) {
        write!(text, "\n  {count:+} {row:?}")?;
    }
    bail!(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_found_both_ways() {
        assert!(same("x", &[1, 2], &[1, 2]).is_ok());
        assert!(same("x", &[1, 2], &[2, 1]).is_err());
        assert!(same("x", &[1], &[1, 1]).is_err());
        assert!(same("x", &[1, 1], &[1]).is_err());
    }
}
