//! Golden tests: what a user writes, and exactly what is said about it.

use std::{fs, path::PathBuf, time::Duration};

use super::*;

/// A file of this name in a folder of its own.
fn file(test: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("weir-config-{}-{test}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("bad.yaml");
    fs::write(&path, text).unwrap();
    path
}

fn load(test: &str, text: impl AsRef<[u8]>, variables: &[(&str, &str)], sets: &[&str]) -> Result<Loaded, Vec<String>> {
    let path = file(test, text);
    let sources = Sources {
        file: Some(path.clone()),
        variables: variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        sets: sets.iter().map(|set| (*set).into()).collect(),
    };
    let loaded = sources.load();
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    let folder = format!("{}/", path.parent().unwrap().display());
    loaded.map_err(|problems| problems.to_string().lines().map(|line| line.replace(&folder, "")).collect())
}

fn said(test: &str, text: impl AsRef<[u8]>) -> Vec<String> {
    load(test, text, &[], &[]).unwrap_err()
}

#[test]
fn no_file_is_the_default() {
    let loaded = Sources::default().load().unwrap();
    let settings = loaded.settings;
    assert_eq!(settings.socket, PathBuf::from("/run/weir/control.sock"));
    assert_eq!(settings.prometheus, Some("127.0.0.1:9464".parse().unwrap()));
    assert_eq!(settings.otlp, None);
    assert_eq!(settings.recent, Recent { memory: 64 << 20, disk: None });
    assert_eq!((settings.kernel.ring, settings.kernel.window), (16 << 20, 0));
    assert_eq!(settings.privacy.level, Level::Strict);
    assert!(settings.select.is_everything());
    assert_eq!(loaded.warnings, []);
}

#[test]
fn an_empty_file_is_the_default() {
    for text in ["", "\n\n", "# nothing\n", "---\n", "privacy:\n", "\u{feff}privacy: {}\n"] {
        let loaded = load("empty", text, &[], &[]).unwrap();
        assert_eq!(loaded.settings, Sources::default().load().unwrap().settings, "{text:?}");
    }
}

#[test]
fn a_typo_names_line_column_and_the_nearest_key() {
    assert_eq!(
        said("typo", "log: {}\n\nprivcy:\n  level: strict\n"),
        ["bad.yaml:3:1: unknown key `privcy`; did you mean `privacy`?"]
    );
    assert_eq!(
        said("typo2", "otlp:\n  endpont: x\n"),
        ["bad.yaml:2:3: unknown key `endpont`; did you mean `endpoint`?"]
    );
    assert_eq!(said("typo3", "control:\n  x: 1\n"), ["bad.yaml:2:3: unknown key `x`; known: socket"]);
    assert_eq!(
        said("typo4", "select:\n  - service: a\n  - prt: 80\n"),
        ["bad.yaml:3:5: unknown key `prt`; did you mean `port`?"]
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "\
privacy:
  level: strct
  lvl: strict
recent: { memory: lots, disk: 5 }
kernel:
  window: 8B
flow:
  reorder: -1
  connections: [1]
traces: { chains: yes, sample: 1.5 }
otlp:
  endpoint:
  protocol: http/json
  headers: { \"a b\": x }
";
    assert_eq!(
        said("all", text),
        [
            "bad.yaml:2:10: `privacy.level`: `strct` is not one of strict, standard, inspect; did you mean `strict`?",
            "bad.yaml:3:3: unknown key `lvl`; known: level, query, headers",
            "bad.yaml:4:19: `recent.memory`: `lots` is not a size; write it as 64MiB, 512B, 1GiB",
            "bad.yaml:4:31: `recent.disk`: `5` is not a section (keys)",
            "bad.yaml:6:11: `kernel.window`: 8B is out of range; write 64B to 64KiB",
            "bad.yaml:8:12: `flow.reorder`: `-1` is not a size; write it as 64MiB, 512B, 1GiB",
            "bad.yaml:9:16: `flow.connections`: a list where a whole number from 0 to 4294967295 belongs",
            "bad.yaml:10:19: `traces.chains`: `yes` is not true or false",
            "bad.yaml:10:32: `traces.sample`: 1.5 is out of range; write 0 to 1",
            "bad.yaml:12:11: `otlp.endpoint`: no value given; write a text, or leave the key out to keep its default",
            "bad.yaml:13:13: `otlp.protocol`: `http/json` is not one of grpc, http, http/protobuf",
            "bad.yaml:14:12: `otlp.headers`: `a b` is not a header's name; letters, digits and - belong there",
        ]
    );
}

#[test]
fn grammar_mistakes_have_places() {
    assert_eq!(
        said("tab", "privacy:\n\tlevel: strict\n"),
        ["bad.yaml:2:2: a tab indents this line; YAML allows spaces only"]
    );
    assert_eq!(
        said("twice", "log: {}\nprivacy: {level: strict}\nlog: {level: warn}\n"),
        ["bad.yaml:3:1: `log` is given twice; first at bad.yaml:1:1"]
    );
    assert_eq!(said("list", "- a\n"), ["bad.yaml:1:1: keys belong here, as `privacy:`"]);
    assert_eq!(
        said("second", "log: {}\n---\nlog: {}\n"),
        ["bad.yaml:2:1: a second document; a configuration is one document"]
    );
    assert_eq!(said("key", "? [a]\n: 1\n"), ["bad.yaml:1:3: a key must be a word"]);
    assert_eq!(said("utf8", b"log: {}\n# \xff\n"), ["bad.yaml:2:3: is not UTF-8 here"]);
    let open = said("open", "otlp: {endpoint: x\n");
    assert!(open.len() == 1 && open[0].starts_with("bad.yaml:"), "{open:?}");
}

#[test]
fn hostile_files_are_refused() {
    assert_eq!(said("huge", vec![b'#'; tree::MAX_BYTES + 1]), ["bad.yaml:1:1: is larger than 1MiB"]);
    assert_eq!(said("deep", "[".repeat(200) + &"]".repeat(200)), ["bad.yaml:1:33: nested deeper than 32"]);
    let laughs =
        (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| format!("{text}a{n}: &a{n} [*a{p}, *a{p}]\n", p = n - 1));
    let said_of_laughs = said("laughs", laughs);
    assert!(said_of_laughs[0].ends_with("more than 16384 values"), "{said_of_laughs:?}");
    let many = said("many", (0..200).fold(String::new(), |text, n| format!("{text}k{n}: 1\n")));
    assert_eq!((many.len(), many[50].as_str()), (51, "bad.yaml:50:1: there is more, not shown; mend these first"));
    assert_eq!(said("alias", "log: &a {level: *a}\n"), ["bad.yaml:1:17: an alias inside its own anchor"]);
}

#[test]
fn aliases_are_followed() {
    let loaded = load(
        "aliases",
        "log: {level: &l warn}\nrecent: {disk: {path: /x, size: 8MiB}}\ncontrol: {socket: *l}\n",
        &[],
        &[],
    );
    assert_eq!(
        loaded.unwrap_err(),
        ["bad.yaml:3:19: `control.socket`: `warn` is not an absolute path; begin it with /"]
    );
}

#[test]
fn a_missing_file_is_an_error_when_it_was_named() {
    let sources = Sources { file: Some("/nonexistent/weir.yaml".into()), ..Sources::default() };
    let said = sources.load().unwrap_err().to_string();
    assert_eq!(said, "/nonexistent/weir.yaml:1:1: can't be read: No such file or directory (os error 2)");
}

#[test]
fn later_layers_win() {
    let text = "otlp:\n  endpoint: http://file:1\n  headers: {a: from-file}\n  timeout: 3s\n";
    let variables = [
        ("WEIR_OTLP__TIMEOUT", "4s"),
        ("WEIR_RECENT__DISK__SIZE", "8MiB"),
        ("WEIR_SELECT", "[{port: 80}]"),
        ("WEIR_HOSTS", "[{addresses: [10.0.0.7]}]"),
        ("WEIR_LOG_LEVEL", "debug"),
        ("WEIR_SERVICE_HOST", "10.0.0.1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:1"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=otel,b=x%20y, c = z%2"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "9"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,service.name=not-this"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "other:1"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Delta"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "d=of%20metrics"),
        ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "true"),
    ];
    let sets = [
        "otlp.compression=none",
        "otlp.resource.k8s.cluster.name=c1",
        "otlp.interval=1m",
        "prometheus.listen=[::1]:9464",
    ];
    let loaded = load("layers", text, &variables, &sets).unwrap();
    let otlp = loaded.settings.otlp.unwrap();
    assert_eq!(otlp.endpoint.as_deref(), Some("http://file:1"));
    assert_eq!([&otlp.traces, &otlp.metrics].map(|signal| signal.protocol), [Protocol::Http, Protocol::Grpc]);
    assert_eq!(
        [&otlp.traces, &otlp.metrics].map(|signal| signal.timeout),
        [Duration::from_millis(1), Duration::from_secs(4)]
    );
    assert_eq!((otlp.traces.endpoint.as_deref(), &otlp.metrics.endpoint), (Some("http://other:1"), &None));
    assert_eq!((otlp.queue, otlp.temporality), (16 << 20, Temporality::Delta));
    assert!(!otlp.traces.wanted && otlp.metrics.wanted);
    assert!([&otlp.traces, &otlp.metrics, &otlp.logs].map(|signal| signal.gzip) == [false, false, true]);
    let pairs = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
    };
    assert_eq!(pairs(&otlp.traces.headers), ["a=from-file", "b=x y", "c=z%2"]);
    assert_eq!(pairs(&otlp.metrics.headers), ["d=of metrics"], "in the place of those of all signals");
    assert_eq!(pairs(&otlp.resource), ["deployment.environment.name=prod", "k8s.cluster.name=c1"]);
    assert!(!loaded.settings.select.is_everything());
    assert_eq!(loaded.settings.prometheus, "[::1]:9464".parse().ok());
    assert_ne!(loaded.settings.hosts, std::sync::Arc::default());
    assert_eq!(otlp.interval, Duration::from_mins(1));
    assert_eq!(
        loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "WEIR_LOG_LEVEL: is not read; write WEIR_LOG__LEVEL, with two underscores",
            "OTEL_EXPORTER_OTLP_TRACES_INSECURE: is not read; see `otlp` for what is"
        ]
    );
}

#[test]
fn every_layer_is_named_in_errors() {
    let variables =
        [("WEIR_PRIVACY__LEVLE", "x"), ("WEIR_LOG__LEVEL", "weir=loud"), ("OTEL_EXPORTER_OTLP_HEADERS", "secret")];
    let sets = ["recent.memory=1", "nonsense", "select=[{port: 99999}]"];
    assert_eq!(
        load("named", "", &variables, &sets).unwrap_err(),
        [
            "OTEL_EXPORTER_OTLP_HEADERS: part 1 is not key=value",
            "WEIR_LOG__LEVEL: `log.level`: `weir=loud` is no level; write error, warn, info, debug or trace",
            "WEIR_PRIVACY__LEVLE: unknown key `levle`; did you mean `level`?",
            "--set nonsense: not key=value; write --set otlp.endpoint=http://host:4317",
            "--set recent.memory: `recent.memory`: too small; write at least 64KiB",
            "--set select: `select[0].port`: `99999` is not a whole number from 0 to 65535",
        ]
    );
}

#[test]
fn values_that_only_look_right_are_refused() {
    for (key, value, remedy) in [
        ("otlp.endpoint", "4317", "write http://HOST:4317"),
        ("otlp.endpoint", "http:/collector", "write http://HOST:4317"),
        ("otlp.endpoint", "collector:99999", "write http://HOST:4317"),
        ("otlp.endpoint", "http://collector:0", "write http://HOST:4317"),
        ("otlp.endpoint", "grpc://collector:4317", "write http://HOST:4317"),
        ("log.level", "inof", "write error, warn, info, debug or trace"),
        ("log.level", "warning", "write error, warn, info, debug or trace"),
        ("log.level", "info,verbose", "write error, warn, info, debug or trace"),
        ("kernel.window", "63B", "write 64B to 64KiB"),
        ("kernel.window", "65537B", "write 64B to 64KiB"),
    ] {
        let said = load("looks", "", &[], &[&format!("{key}={value}")]).map(drop).unwrap_err();
        assert!(said[0].starts_with(&format!("--set {key}: `{key}`: ")) && said[0].contains(remedy), "{said:?}");
    }
    for (key, value) in [
        ("otlp.endpoint", "collector"),
        ("otlp.endpoint", "http://[::1]:4317"),
        ("otlp.endpoint", "https://10.0.0.1/base"),
        ("log.level", "off"),
        ("log.level", "warn,weir::flow=trace,h2=off"),
        ("log.level", "weir::flow"),
        ("kernel.window", "64KiB"),
    ] {
        assert!(load("right", "", &[], &[&format!("{key}={value}")]).is_ok(), "{key}={value}");
    }
    for (window, kept, warned) in [("512B", 0, false), ("1KiB", 0, true), ("4KiB", 0, true), ("5000B", 5000, false)] {
        let loaded = load("window", "", &[], &[&format!("kernel.window={window}")]).unwrap();
        assert_eq!((loaded.settings.kernel.window, !loaded.warnings.is_empty()), (kept, warned), "{window}");
    }
}

#[test]
fn variables_with_an_underscore_too_few_are_warned_of() {
    let variables = [
        ("WEIR_PRIVACY_LEVEL", "standard"),
        ("WEIR_ENFORCE_BREAKER__CLIENTS", "5"),
        ("WEIR_SERVICE_HOST", "10.0.0.1"),
        ("WEIR_PORT", "tcp://10.0.0.1:9464"),
        ("WEIR_HOSTS", "[]"),
    ];
    let loaded = load("underscore", "", &variables[..1], &[]).unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["WEIR_PRIVACY_LEVEL: is not read; write WEIR_PRIVACY__LEVEL, with two underscores"]);
    assert!(load("service", "", &variables[2..], &[]).unwrap().warnings.is_empty());
    assert_eq!(load("hosts", "", &[("WEIR_HOSTS", "x")], &[]).unwrap_err(), ["WEIR_HOSTS: `hosts`: `x` is not a list"]);
    let said = load("half", "", &variables[1..2], &[]).unwrap_err();
    assert!(said[0].starts_with("WEIR_ENFORCE_BREAKER__CLIENTS: unknown key"), "{said:?}");
}

#[test]
fn secrets_are_never_shown() {
    let secret = "canary-5e1f";
    let names = ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_LOGS_HEADERS"];
    let variables = names.map(|name| (name, format!("authorization={secret}")));
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let loaded = load("secret", format!("otlp: {{headers: {{x-key: {secret}}}}}\n"), &variables, &[]).unwrap();
    for shown in [loaded.effective.yaml(), loaded.effective.json().to_string()] {
        assert!(shown.contains("x-key") && shown.contains("***") && !shown.contains(secret), "{shown}");
    }
    let said = load("user", format!("otlp: {{endpoint: 'http://me:{secret}@host:1'}}\n"), &[], &[]).unwrap_err();
    assert_eq!(said, ["bad.yaml:1:18: `otlp.endpoint`: has a user in it; credentials belong in otlp.headers"]);
    let said = load("value", format!("otlp: {{headers: {{a: \"{secret}\\n\"}}}}\n"), &[], &[]).unwrap_err();
    assert_eq!(said, ["bad.yaml:1:17: `otlp.headers`: the value of `a` has bytes that a header can't carry"]);
}

#[test]
fn the_effective_configuration_names_its_sources_and_can_be_read_again() {
    let text = "privacy:\n  level: standard\nselect: [{service: 'a b', port: 80}]\n";
    let loaded = load("show", text, &[("WEIR_LOG__LEVEL", "warn")], &["kernel.ring=1MiB"]).unwrap();
    let yaml = loaded.effective.yaml();
    for (key, place) in [
        ("  level: standard", "bad.yaml:2:10"),
        ("  level: warn", "WEIR_LOG__LEVEL"),
        ("  ring: 1MiB", "--set kernel.ring"),
        ("  window: 512B", "default"),
        ("    size: 1GiB", "default"),
    ] {
        let line =
            yaml.lines().find(|line| line.starts_with(&format!("{key} "))).unwrap_or_else(|| panic!("{key} in {yaml}"));
        assert!(line.ends_with(place), "{line}");
    }
    let again = load("again", &yaml, &[], &[]).unwrap();
    assert_eq!(again.settings, loaded.settings);
}

#[test]
fn the_schema_says_what_each_key_means() {
    let schema = schema();
    assert_eq!(schema["additionalProperties"], false);
    let text = schema.to_string();
    let missing: Vec<_> = schema["$defs"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, section)| section["type"] == "object")
        .flat_map(|(name, section)| {
            section["properties"].as_object().unwrap().iter().map(move |(key, value)| (name, key, value))
        })
        .filter(|(_, _, value)| value["description"].as_str().is_none_or(str::is_empty))
        .map(|(name, key, _)| format!("{name}.{key}"))
        .collect();
    assert_eq!(missing, Vec::<String>::new());
    assert!(text.contains("64MiB") && text.contains("/run/weir/control.sock"), "defaults are part of it");
}

#[test]
fn rules_that_do_nothing_are_refused() {
    let text = "\
identity:
  rules:
    - {name: web}
    - {port: 80}
    - {unit: a.service, name: \"\"}
    - {command_line: '*shop*', name: shop}
select:
  - port: 0
routes:
  templates: [orders, '/a/{', '/ok/{id}']
";
    assert_eq!(
        said("rules", text),
        [
            "bad.yaml:3:7: `identity.rules`: rule 1 meets every process; give it executable, command_line, unit, container or port",
            "bad.yaml:4:7: `identity.rules`: rule 2 names nothing; give it name or namespace",
            "bad.yaml:5:7: `identity.rules`: rule 3 has a name that can't be used; write 1 to 255 bytes without control characters",
            "bad.yaml:8:5: `select`: rule 1 meets nothing at port 0; write 1 to 65535",
            "bad.yaml:10:15: `routes.templates`: `orders`: begin it with /",
            "bad.yaml:10:23: `routes.templates`: `/a/{`: a segment is a word or {name}, not both",
        ]
    );
}

/// What the agent would refuse when it starts is no good file.
#[test]
fn drop_rules_are_judged_with_the_file() {
    let text = "enforce:
  rules:
    - { id: x }
    - { id: y, client: { address: 203.0.113.0/33 } }
";
    let said_of = said("drop", text);
    assert_eq!(said_of.len(), 2, "{said_of:?}");
    assert!(
        said_of[0].starts_with("bad.yaml:3:7: `enforce.rules[0]`: the rule has no condition and would meet every call"),
        "{said_of:?}"
    );
    assert!(said_of[1].starts_with("bad.yaml:4:35: `enforce.rules[1]`: "), "{said_of:?}");
    let rule = "{ id: x, client: { address: 203.0.113.1 } }";
    assert_eq!(
        said("drop-twice", format!("enforce: {{ rules: [ {rule}, {rule} ] }}\n")),
        ["bad.yaml:1:19: `enforce.rules`: rule x exists already: remove it first, or choose another id"]
    );
    assert_eq!(
        load("drop-good", format!("enforce: {{ rules: [ {rule} ] }}\n"), &[], &[]).unwrap().settings.rules.len(),
        1
    );
}

#[test]
fn hosts_are_named_by_address_and_port() {
    let text = "hosts:\n  - addresses: [10.0.0.7, 10.9.0.0/16]\n    services:\n      - { port: 80, name: shop, namespace: prod }\n";
    let hosts = load("hosts", text, &[], &[]).unwrap().settings.hosts;
    assert!(hosts.has("10.9.1.1".parse().unwrap()) && !hosts.has("10.0.0.8".parse().unwrap()));
    let shop = hosts.at("10.9.1.1:80".parse().unwrap()).unwrap();
    assert_eq!((&*shop.name, shop.namespace.as_deref()), ("shop", Some("prod")));
    assert_eq!(
        said(
            "hosts-bad",
            "hosts:\n  - addresses: []\n  - addresses: [10.0.0.1/24, 127.0.0.1, 0.0.0.0/0]\n    services: [{ port: 80, name: a }, { port: 80, name: '' }]\n",
        ),
        [
            "bad.yaml:2:16: `hosts[0].addresses`: a host has one address at least",
            "bad.yaml:3:16: `hosts[1].addresses`: address 10.0.0.1/24: bits behind the prefix are set; write 10.0.0.0/24",
            "bad.yaml:3:16: `hosts[1].addresses`: `127.0.0.1` holds addresses that every host has; write its own",
            "bad.yaml:3:16: `hosts[1].addresses`: `0.0.0.0/0` holds addresses that every host has; write its own",
            "bad.yaml:4:15: `hosts[1].services`: port 80 is named twice",
            "bad.yaml:4:15: `hosts[1].services`: \"\" is no usable name: 1 to 255 bytes without control characters",
        ]
    );
}

/// `deploy/weir.yaml` holds every key, with its default: who reads it knows all there is.
#[test]
fn the_example_holds_every_key_with_its_default() {
    let text = include_str!("../../../deploy/weir.yaml");
    let (written, none) = (load("example", text, &[], &[]).unwrap(), load("example-none", "", &[], &[]).unwrap());
    let list = |loaded: &Loaded| loaded.effective.json().as_array().unwrap().clone();
    for (one, other) in list(&written).iter().zip(list(&none)) {
        assert_eq!((&one["key"], &one["value"]), (&other["key"], &other["value"]));
        assert_ne!(one["from"], "default", "{} is not in deploy/weir.yaml", one["key"]);
    }
    assert_eq!(list(&written).len(), list(&none).len());
    assert!(written.warnings.is_empty(), "{:?}", written.warnings);
}

#[test]
fn what_a_terminal_would_obey_is_not_in_messages() {
    assert_eq!(
        said("obeyed", "kernel: {\"a\\e[31mb\": 1}"),
        ["bad.yaml:1:10: unknown key `a\u{fffd}[31mb`; known: ring, window, cgroup"]
    );
}
