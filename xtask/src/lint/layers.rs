//! Who may import whom inside the agent: the table of layers, and the search for imports that it does not have.

use anyhow::{Context as _, Result};

use super::{tokens, tree};

/// A row of the table: modules, and the paths that they may name besides themselves. A path allows all below it.
struct Layer {
    modules: &'static [&'static str],
    may: &'static [&'static [&'static str]],
}

const WORDS: &[&str] = &["clock", "meter", "model"];
const LEAVES: &[&str] = &["kernel", "proto", "tls", "golang", "identity"];
const JUDGEMENT: &[&str] = &["graph", "catalog", "policy", "detect", "redact", "recent"];
const DOORS: &[&str] = &["export", "control"];
const BELOW_WIRING: &[&[&str]] = &[WORDS, LEAVES, &["flow"], JUDGEMENT, DOORS];

/// From the bottom up.
const LAYERS: &[Layer] = &[
    Layer { modules: WORDS, may: &[WORDS] },
    Layer { modules: LEAVES, may: &[WORDS] },
    Layer { modules: &["flow"], may: &[WORDS, &["proto"]] },
    Layer { modules: JUDGEMENT, may: &[WORDS] },
    Layer { modules: DOORS, may: &[WORDS, &["redact"]] },
    Layer { modules: &["config"], may: BELOW_WIRING },
    Layer { modules: &["app"], may: &[WORDS, LEAVES, &["flow"], JUDGEMENT, DOORS, &["config"]] },
    Layer { modules: &["cli"], may: &[WORDS, &["config", "control::client", "app", "tui"]] },
    Layer { modules: &["tui"], may: &[WORDS, &["config", "control::client"]] },
    Layer { modules: &["main"], may: &[&["cli"]] },
];

/// Crates that `proto` must not know: it has no I/O, no threads of its own, nothing of the kernel.
const PROTO_WITHOUT: &[&str] = &["aya", "tokio", "libc", "socket2", "hyper"];

const SOURCES: &str = "agent/src/";

/// Imports that break the table.
pub(crate) fn check() -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for path in tree::rust_files()? {
        let Some(module) = path.strip_prefix(SOURCES).and_then(module) else { continue };
        if let Some(text) = tree::text(&path)? {
            broken.extend(judge(&path, &module, &text).with_context(|| path.clone())?);
        }
    }
    Ok(broken)
}

/// The module path of a file below the sources; `None` for what is not a module (`lib.rs` only lists them).
fn module(file: &str) -> Option<Vec<String>> {
    let stem = file.strip_suffix(".rs")?;
    if stem == "lib" {
        return None;
    }
    Some(stem.strip_suffix("/mod").unwrap_or(stem).split('/').map(str::to_owned).collect())
}

fn judge(file: &str, module: &[String], text: &str) -> Result<Vec<String>> {
    let Some(own) = module.first().map(String::as_str) else { return Ok(Vec::new()) };
    let Some(layer) = LAYERS.iter().find(|layer| layer.modules.contains(&own)) else {
        return Ok(vec![format!("{file}: module {own} has no row in the table of layers")]);
    };
    let tokens = tokens::parse(text)?;
    let mut broken = Vec::new();
    for named in tokens::named(tokens.clone(), "weir", module) {
        let path = named.path.join("::");
        if named.path.first().is_some_and(|first| first != own) && !layer.allows(&named.path) {
            broken.push(format!("{file}:{}: {own} may not import {path}", named.line));
        }
    }
    if own == "proto" {
        for word in PROTO_WITHOUT.iter().chain(["unsafe"].iter()) {
            if tokens::has_ident(tokens.clone(), word) {
                broken.push(format!("{file}: proto may not use {word}"));
            }
        }
    }
    Ok(broken)
}

impl Layer {
    fn allows(&self, path: &[String]) -> bool {
        self.may.iter().copied().flatten().any(|allowed| {
            let mut allowed = allowed.split("::");
            let mut path = path.iter();
            allowed.all(|name| path.next().is_some_and(|found| found == name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{judge, module};

    fn broken(file: &str, text: &str) -> Vec<String> {
        let module = module(file).expect("a module");
        judge(file, &module, text).expect("tokens")
    }

    #[test]
    fn a_forbidden_import_is_found_however_it_is_written() {
        assert_eq!(
            broken("proto/http1.rs", "use crate::kernel::Ring;"),
            ["proto/http1.rs:1: proto may not import kernel::Ring"]
        );
        assert_eq!(broken("policy/compile.rs", "use crate::{model, kernel::{tables}};").len(), 1);
        assert_eq!(broken("policy/compile.rs", "fn f() { crate::kernel::tables::put(); }").len(), 1);
        assert_eq!(broken("policy/compile.rs", "use super::super::kernel;").len(), 1);
        assert_eq!(broken("model/exchange.rs", "use crate::flow::Table;").len(), 1);
        assert_eq!(broken("recent.rs", "use crate::graph::Graph;").len(), 1);
        assert_eq!(broken("tui/mod.rs", "use crate::app;").len(), 1);
        assert_eq!(broken("cli/calls.rs", "use crate::control::server::Server;").len(), 1);
        assert_eq!(broken("flow/table.rs", "use crate::*;").len(), 1);
    }

    #[test]
    fn what_the_table_allows_is_allowed() {
        for (file, text) in [
            (
                "proto/http1/mod.rs",
                "use crate::{clock, meter::Meter, model::Exchange, proto::cursor::Cursor}; use super::Parser;",
            ),
            ("flow/table.rs", "use crate::proto::Parser; use super::stream::Stream;"),
            ("export/otlp.rs", "use crate::redact::Level;"),
            ("app/stop.rs", "use crate::{kernel::load, policy, flow, export, config};"),
            ("cli/calls.rs", "use crate::{config, control::client::Client};"),
            ("main.rs", "fn main() { weir::cli::main() }"),
        ] {
            assert_eq!(broken(file, text), Vec::<String>::new(), "{file}");
        }
    }

    #[test]
    fn a_module_without_a_row_is_found() {
        assert_eq!(broken("helpers.rs", ""), ["helpers.rs: module helpers has no row in the table of layers"]);
    }

    #[test]
    fn proto_has_no_world() {
        assert_eq!(broken("proto/http1.rs", "use tokio::net::TcpStream;"), ["proto/http1.rs: proto may not use tokio"]);
        assert_eq!(
            broken("proto/cursor.rs", "fn f(p: *const u8) { unsafe { *p }; }"),
            ["proto/cursor.rs: proto may not use unsafe"]
        );
        assert_eq!(broken("proto/cursor.rs", "// no tokio, no unsafe\n"), Vec::<String>::new());
    }

    #[test]
    fn module_paths_follow_files() {
        assert_eq!(module("proto/http1/mod.rs").expect("a module"), ["proto", "http1"]);
        assert_eq!(module("clock.rs").expect("a module"), ["clock"]);
        assert_eq!(module("lib.rs"), None);
    }
}
