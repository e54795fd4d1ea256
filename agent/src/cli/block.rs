//! `weir block`.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{
    Usage,
    agent::Agent,
    print, rows,
    screen::{Screen, harmless, table},
};

/// Adds, lists, removes and explains drop rules
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir block add --client 203.0.113.0/24 --to-service payments --reason 'scan' --dry-run
  weir block list")]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Add(Box<Add>),
    List(List),
    /// Removes a rule; what it refused passes from then on
    Remove(One),
    /// Shows a rule, which of the kept calls it meets, and which rules win over it
    Explain(One),
}

/// Adds a rule; it is in mode monitor unless told otherwise, and ends after an hour
#[derive(Debug, Args)]
#[command(after_help = "\
All conditions must hold; several values of one condition are alternatives.

Examples:
  weir block add --client 203.0.113.0/24 --to-service payments --ttl 1h --reason 'scan' --dry-run
  weir block add --client-service batch --port 8080 --method POST --path /login --reason 'ticket 17'
  weir block add --port 8080 --rate 100/s --burst 20 --reason 'protect the shop'")]
struct Add {
    /// Name of the rule [default: made up]
    #[arg(long)]
    id: Option<String>,
    /// Client's address or CIDR
    #[arg(long, value_name = "CIDR")]
    client: Vec<String>,
    /// Client's service.name on this node
    #[arg(long, value_name = "NAME")]
    client_service: Vec<String>,
    /// Client's executable on this node
    #[arg(long, value_name = "NAME")]
    client_process: Vec<String>,
    /// Client's systemd unit on this node
    #[arg(long, value_name = "NAME")]
    client_unit: Vec<String>,
    /// Client's container id on this node, or 12 characters of its start
    #[arg(long, value_name = "ID")]
    client_container: Vec<String>,
    /// Client's pod on this node
    #[arg(long, value_name = "NAMESPACE/NAME")]
    client_pod: Vec<String>,
    /// Server's service.name on this node
    #[arg(long, value_name = "NAME")]
    to_service: Vec<String>,
    /// Server's address or CIDR
    #[arg(long, value_name = "CIDR")]
    to_address: Vec<String>,
    /// Server's port
    #[arg(long)]
    port: Vec<u16>,
    /// Host as the request names it; `*.` in front for all below
    #[arg(long)]
    host: Vec<String>,
    /// Request method
    #[arg(long)]
    method: Vec<String>,
    /// `/prefix`, `=/exact` or `/a/{template}`
    #[arg(long)]
    path: Vec<String>,
    /// What it asks for [default: deny; limit where a rate is given]
    #[arg(long, value_parser = ["deny", "limit", "watch", "allow"])]
    action: Option<String>,
    /// Rate of a limit: 100/s, 600/m, 5/10s
    #[arg(long)]
    rate: Option<String>,
    /// Requests of a limit that may come at once
    #[arg(long, requires = "rate")]
    burst: Option<u32>,
    /// Whose rate it is; network: all of an IPv6 /64 [default: client]
    #[arg(long, requires = "rate", value_parser = ["client", "network", "rule"])]
    per: Option<String>,
    /// How a refused connection ends [default: reset]
    #[arg(long, value_parser = ["reset", "drop"])]
    end: Option<String>,
    /// Ambiguous requests are met too
    #[arg(long)]
    strict: bool,
    /// Whether it may drop; the node's mode must be enforce too [default: monitor]
    #[arg(long, value_parser = ["monitor", "enforce"])]
    mode: Option<String>,
    /// −100 to 100; higher wins [default: 0]
    #[arg(long, allow_hyphen_values = true)]
    priority: Option<i32>,
    /// How long it holds: 90s, 1h, 7d, never [default: 1h]
    #[arg(long)]
    ttl: Option<String>,
    /// Why, for people
    #[arg(long)]
    reason: String,
    /// Take it although it meets addresses that many share, very wide prefixes or this node
    #[arg(long)]
    force: bool,
    /// Only tell which of the last hour's kept calls it would have met
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    agent: Agent,
}

/// Lists rules with what they met
#[derive(Debug, Args)]
#[command(after_help = "Example: weir block list --json | jq -r .id")]
struct List {
    /// One JSON document a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: Agent,
}

// A rule by its id.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir block explain scan
  weir block remove scan")]
struct One {
    /// The rule
    id: String,
    #[command(flatten)]
    agent: Agent,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.what {
        What::Add(add) if add.dry_run => {
            let told = add.agent.change("POST", "/v1/blocks?dry_run=1", Some(&add.rule()))?;
            warn_of_proxies(&told);
            print::document(&told)
        }
        What::Add(add) => {
            let made = add.agent.change("POST", "/v1/blocks", Some(&add.rule()))?;
            if let Some(id) = made.get("id").and_then(Value::as_str)
                // Who has ended or removed it by now needs no warning.
                && let Ok(told) = add.agent.client().document::<Value>("GET", &format!("/v1/blocks/{id}"))
            {
                warn_of_proxies(&told);
            }
            print::document(&made)
        }
        What::List(list) => self::list(&list),
        What::Remove(one) => print::document(&one.agent.change("DELETE", &one.target()?, None)?),
        What::Explain(one) => {
            let told: Value = one.agent.client().document("GET", &one.target()?)?;
            print::document(&told)
        }
    }
}

/// Says which proxies a rule's requests came over lately: what it refuses resets a connection of theirs.
fn warn_of_proxies(told: &Value) {
    for proxy in told.get("proxies").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| harmless(proxy.get(key).and_then(Value::as_str).unwrap_or_default());
        eprintln!(
            "warning: {} is {}. What the rule refuses resets a connection of that proxy, which may take the server for sick \
             and out of service for everybody: better put the rule at the proxy's port",
            text("client"),
            text("why")
        );
    }
}

impl One {
    fn target(&self) -> Result<String, Usage> {
        let ok = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if self.id.is_empty() || !self.id.bytes().all(ok) {
            return Err(Usage(format!("{:?} is no rule's id", self.id)));
        }
        Ok(format!("/v1/blocks/{}", self.id))
    }
}

impl Add {
    fn rule(&self) -> Value {
        let map = |pairs: Vec<(&str, Value)>| {
            let given = pairs.into_iter().filter(|(_, value)| match value {
                Value::Array(list) => !list.is_empty(),
                Value::Object(map) => !map.is_empty(),
                Value::Null | Value::Bool(false) => false,
                _ => true,
            });
            Value::Object(given.map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>())
        };
        let client = map(vec![
            ("address", json!(self.client)),
            ("service", json!(self.client_service)),
            ("process", json!(self.client_process)),
            ("unit", json!(self.client_unit)),
            ("container", json!(self.client_container)),
            ("pod", json!(self.client_pod)),
        ]);
        let server = map(vec![
            ("service", json!(self.to_service)),
            ("address", json!(self.to_address)),
            ("port", json!(self.port)),
            ("host", json!(self.host)),
        ]);
        let limit = self
            .rate
            .as_ref()
            .map(|rate| map(vec![("rate", json!(rate)), ("burst", json!(self.burst)), ("per", json!(self.per))]));
        map(vec![
            ("id", json!(self.id)),
            ("action", json!(self.action)),
            ("mode", json!(self.mode)),
            ("end", json!(self.end)),
            ("strict", self.strict.into()),
            ("force", self.force.into()),
            ("priority", json!(self.priority)),
            ("client", client),
            ("server", server),
            ("method", json!(self.method)),
            ("path", json!(self.path)),
            ("limit", json!(limit)),
            ("ttl", json!(self.ttl)),
            ("reason", json!(self.reason)),
        ])
    }
}

fn list(list: &List) -> anyhow::Result<()> {
    let lines = list.agent.client().lines("/v1/blocks")?;
    if list.json {
        return print::lines(lines);
    }
    let rows = rows::read(lines, |row| {
        let text = |key: &str| harmless(row.get(key).and_then(Value::as_str).unwrap_or("-"));
        let number = |key: &str| row.get(key).and_then(Value::as_u64).unwrap_or_default();
        let keys = [
            "client.address",
            "client.addresses",
            "client.who",
            "server.who",
            "server.address",
            "server.port",
            "method",
            "path",
            "host",
        ];
        let conditions = keys.iter().filter_map(|key| row.get(*key).map(|value| format!("{key}={value}")));
        vec![
            text("id"),
            text("action"),
            text("effective_mode"),
            (number("hits") + number("attempts")).to_string(),
            text("last_hit"),
            text("until"),
            text("source"),
            harmless(&conditions.collect::<Vec<_>>().join(" ")),
            text("reason"),
        ]
    })?;
    let headings = ["RULE", "ACTION", "MODE", ">HITS", "LAST HIT", "UNTIL", "SOURCE", "MEETS", "REASON"];
    print::text(&table(Screen::of_table(), &headings, &rows))
}
