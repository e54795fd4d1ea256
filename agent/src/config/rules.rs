//! Files of the rules directory, read as the configuration is: a mistake names its line and the nearest key.

use std::path::Path;
use std::sync::Arc;

use super::tree::{MAX_BYTES, Node, Value, parse_file};
use super::{Place, Problem, Problems, Size, read};
use crate::policy::written::{WrittenRule, WrittenRules};

/// The rules of a file, each with its place.
#[derive(Clone, Debug)]
pub struct RulesFile {
    /// The file.
    pub path: Arc<Path>,
    /// Its rules.
    pub rules: Vec<WrittenRule>,
    tree: Node,
}

impl RulesFile {
    /// Reads a file's content; an empty file has no rules. Fails with everything that is wrong.
    pub fn read(path: &Path, bytes: &[u8]) -> Result<Self, Problems> {
        let start = |line| Place::File { path: path.into(), line, column: 1 };
        if bytes.len() > MAX_BYTES {
            let text = format!("is larger than {}", Size(MAX_BYTES as u64));
            return Err(Problems(vec![Problem::new(&start(1), text)]));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = good.split(|byte| *byte == b'\n').count();
            Problems(vec![Problem::new(&start(line as u32), "is not UTF-8 here")])
        })?;
        let mut problems = Vec::new();
        let Some(tree) = parse_file(path, text, &mut problems) else { return Err(Problems::new(problems)) };
        let written = match tree.value {
            Value::Null => Some(WrittenRules::default()),
            Value::Map(_) => read::read::<WrittenRules>(&tree, &mut problems),
            Value::Scalar { .. } | Value::List(_) => {
                problems.push(Problem::new(&tree.place, "keys belong here, as `rules:`"));
                None
            }
        };
        match written {
            Some(written) if problems.is_empty() => Ok(Self { path: path.into(), rules: written.rules, tree }),
            _ => Err(Problems::new(problems)),
        }
    }

    /// A mistake in a rule, counted from 0, at the place of its key where it is known.
    #[must_use]
    pub fn problem(&self, rule: usize, key: Option<&str>, text: &str) -> Problem {
        let index = rule.to_string();
        let at = ["rules", index.as_str()];
        let node = key.and_then(|key| self.tree.get(at.into_iter().chain(key.split('.'))));
        let place = node.or_else(|| self.tree.get(at)).map_or(&self.tree.place, |node| &node.place);
        Problem::new(place, format!("`rules[{rule}]`: {text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        RulesFile::read(Path::new("a.yaml"), text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn mistakes_name_their_place() {
        assert_eq!(
            said("rules:\n- id: a\n  clint: {address: 192.0.2.1}\n- id: b\n  client: {adress: x}\n"),
            "a.yaml:3:3: unknown key `clint`; did you mean `client`?\na.yaml:5:12: unknown key `adress`; did you mean `address`?"
        );
        assert!(said("rule: []").contains("unknown key `rule`; did you mean `rules`?"), "{}", said("rule: []"));
        assert!(said("- a").contains("keys belong here"));
        assert!(said("rules: [").starts_with("a.yaml:1:"));
    }

    #[test]
    fn numbers_are_read_as_numbers() {
        let text = "rules:\n- server: {port: [80, 443], process: 123}\n- server: {port: 8080}\n  client: {container: [123456789012]}\n";
        let file = RulesFile::read(Path::new("a.yaml"), text.as_bytes()).unwrap();
        assert_eq!(file.rules[0].server.port.as_slice(), [80, 443]);
        assert_eq!(file.rules[1].server.port.as_slice(), [8080]);
        assert_eq!(file.rules[1].client.container.as_slice(), ["123456789012"]);
        assert_eq!(
            said("rules:\n- server: {port: [80, x]}\n"),
            "a.yaml:2:23: `rules[0].server.port[1]`: `x` is not a whole number from 0 to 65535"
        );
        let rule: WrittenRule = serde_json::from_str(r#"{"server":{"port":[80,8080]},"method":"GET"}"#).unwrap();
        assert_eq!(rule.server.port.as_slice(), [80, 8080]);
        assert!(serde_json::from_str::<WrittenRule>(r#"{"server":{"port":70000}}"#).is_err());
        assert!(serde_json::from_str::<WrittenRule>(r#"{"method":[["GET"]]}"#).is_err());
    }

    #[test]
    fn places_of_rules_are_known() {
        let text = "rules:\n- id: a\n- id: b\n  client:\n    address: 1.2.3.4/8\n";
        let file = RulesFile::read(Path::new("a.yaml"), text.as_bytes()).unwrap();
        assert_eq!(file.rules.len(), 2);
        assert_eq!(file.problem(1, Some("client.address"), "x").to_string(), "a.yaml:5:14: `rules[1]`: x");
        assert_eq!(file.problem(1, Some("server.port"), "x").to_string(), "a.yaml:3:3: `rules[1]`: x");
        assert!(RulesFile::read(Path::new("a.yaml"), b"# none\n").unwrap().rules.is_empty());
    }

    /// `WeirPolicy` in `deploy` has the keys of a rule, and no others.
    #[test]
    fn policies_of_a_cluster_have_the_keys_of_a_rule() {
        let text = include_str!("../../../deploy/kubernetes/weirpolicy.yaml");
        let mut problems = Vec::new();
        let kind = text.split("\n---\n").next().unwrap();
        let tree = parse_file(Path::new("weirpolicy.yaml"), kind, &mut problems).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        let keys = |node: &Node| match &node.value {
            Value::Map(map) => map.iter().map(|entry| entry.key.to_string()).collect::<std::collections::BTreeSet<_>>(),
            _ => panic!("no map"),
        };
        let rule = "spec.versions.0.schema.openAPIV3Schema.properties.spec.properties.rules.items.properties";
        let at = |path: &str| keys(tree.get(format!("{rule}{path}").split('.')).unwrap());
        let schema = schemars::schema_for!(WrittenRule).to_value();
        let of = |value: &serde_json::Value| value["properties"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(at(""), of(&schema));
        assert_eq!(at(".client.properties"), of(&schema["$defs"]["WrittenEnd"]));
        assert_eq!(at(".server.properties"), of(&schema["$defs"]["WrittenEnd"]));
        assert_eq!(at(".limit.properties"), of(&schema["$defs"]["WrittenLimit"]));
    }
}
