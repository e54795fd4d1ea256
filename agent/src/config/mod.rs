//! Settings, read twice: as written (`written`), then as usable (`check`). Every value knows where it was written.

mod check;
mod drop_rules;
mod feeds;
mod hosts;
mod layers;
mod otlp;
mod problem;
mod proxies;
mod quantity;
mod read;
mod rules;
mod select;
mod show;
mod tree;
mod written;

#[cfg(test)]
mod tests;

use std::{fs::File, io::Read as _, path::PathBuf};

pub use check::{Flow, Identity, Kernel, Kubernetes, Privacy, Recent, Routes, Settings, Traces};
pub use feeds::{DIRECTORY, Feed, FeedFormat, Origin, POLICIES, Policies, WrittenFeed};
pub use hosts::{HostService, WrittenHost};
pub use otlp::{Compression, Otlp, Protocol, Signal, Signals, Temporality, WrittenOtlp, WrittenSignal};
pub use problem::{Place, Problem, Problems};
pub use proxies::{WrittenHeader, WrittenProxies};
pub use quantity::{Size, Time};
pub use rules::RulesFile;
pub use select::Select;
pub use show::Effective;
pub use written::{Instrumented, KubernetesMode, Level, Mode, NameRule, SelectRule, TlsMode, Written};

use tree::{Node, Value};

/// The file that is read when no other is named and it is there.
pub const DEFAULT_FILE: &str = "/etc/weir/weir.yaml";

/// Where a configuration comes from; kept by the agent, to read it again on reload.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file to read, which must be there; `None`: [`DEFAULT_FILE`] if it is there.
    pub file: Option<PathBuf>,
    /// Environment variables.
    pub variables: Vec<(String, String)>,
    /// `--set` arguments, each `a.b=v`.
    pub sets: Vec<String>,
}

/// A configuration that was read and can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// As usable.
    pub settings: Settings,
    /// As written, with where each value came from.
    pub effective: Effective,
    /// What was written and has no effect.
    pub warnings: Vec<Problem>,
}

impl Sources {
    /// A file (or the default one), this process's environment, and `--set` arguments.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, sets: Vec<String>) -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
            .filter(|(name, _)| name.starts_with("WEIR_") || name.starts_with("OTEL_"))
            .collect();
        Self { file, variables, sets }
    }

    /// Reads all layers. Fails with everything that is wrong.
    pub fn load(&self) -> Result<Loaded, Problems> {
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        let mut tree = self.read_file(&mut problems).ok_or_else(|| Problems::new(problems.clone()))?;
        layers::environment(&mut tree, &self.variables, &mut problems, &mut warnings);
        layers::otel(&mut tree, &self.variables, &mut problems, &mut warnings);
        layers::sets(&mut tree, &self.sets, &mut problems);
        if let Some(written) = read::read::<Written>(&tree, &mut problems) {
            let settings = check::usable(&written, &tree, &mut problems, &mut warnings);
            if problems.is_empty() {
                return Ok(Loaded { settings, effective: Effective::new(written, tree), warnings });
            }
        }
        Err(Problems::new(problems))
    }

    /// The file's tree; an empty one if there is no file. `None` when it can't be read or parsed.
    fn read_file(&self, problems: &mut Vec<Problem>) -> Option<Node> {
        let path = self.file.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        let start = Place::File { path: path.as_path().into(), line: 1, column: 1 };
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(tree::MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
        match read {
            Err(error) if self.file.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                return Some(Node::map(Place::Default));
            }
            Err(error) => {
                problems.push(Problem::new(&start, format!("can't be read: {error}")));
                return None;
            }
            Ok(_) if bytes.len() > tree::MAX_BYTES => {
                problems.push(Problem::new(&start, format!("is larger than {}", Size(tree::MAX_BYTES as u64))));
                return None;
            }
            Ok(_) => {}
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
                let line = good.split(|byte| *byte == b'\n').count();
                let begun = good.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
                let column = String::from_utf8_lossy(begun).chars().count() + 1;
                let place = Place::File { path: path.as_path().into(), line: line as u32, column: column as u32 };
                problems.push(Problem::new(&place, "is not UTF-8 here"));
                return None;
            }
        };
        let node = tree::parse_file(&path, &text, problems)?;
        match node.value {
            Value::Map(_) => Some(node),
            Value::Null => Some(Node::map(node.place)),
            Value::Scalar { .. } | Value::List(_) => {
                problems.push(Problem::new(&node.place, "keys belong here, as `privacy:`"));
                None
            }
        }
    }
}

/// JSON Schema (draft 2020-12) of the configuration file.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Written).to_value()
}
