//! The real binary: exit codes, where data and messages go, help.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    path::PathBuf,
    process::{Command, Output},
};

fn weir(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir")).args(arguments).env_clear().output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A file in a folder of this test's own.
fn file(test: &str, content: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("weir-cli-{}-{test}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("weir.yaml");
    std::fs::write(&path, content).unwrap();
    path
}

/// Every verb and verb of a verb, as `--help` lists them.
fn verbs(path: &[String]) -> Vec<Vec<String>> {
    let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = weir(&arguments);
    let listed: Vec<String> = text(&help.stdout)
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .map(String::from)
        .collect();
    let mut all = Vec::new();
    for verb in listed {
        let inner = [path, &[verb]].concat();
        all.push(inner.clone());
        all.extend(verbs(&inner));
    }
    all
}

#[test]
fn help_fits_a_terminal() {
    let help = weir(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let lines: Vec<&str> = text(&help.stdout).lines().collect();
    assert!(lines.len() <= 40, "{} lines", lines.len());
    let wide: Vec<_> = lines.iter().filter(|line| line.chars().count() > 100).collect();
    assert_eq!(wide, Vec::<&&str>::new());
}

#[test]
fn every_verb_has_help_and_an_example() {
    let verbs = verbs(&[]);
    assert!(verbs.iter().any(|verb| verb.join(" ") == "config check"), "{verbs:?}");
    for verb in verbs {
        let mut arguments: Vec<&str> = verb.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = weir(&arguments);
        assert_eq!(help.status.code(), Some(0), "{verb:?}");
        assert!(text(&help.stdout).contains("Example"), "{verb:?} has no example");
        assert!(text(&help.stdout).contains(&format!("weir {}", verb.join(" "))), "{verb:?}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [
        vec!["nonsense"],
        vec!["config"],
        vec!["config", "check"],
        vec!["completions", "cmd"],
        vec!["calls", "--status", "5x"],
    ] {
        let output = weir(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        assert_ne!(text(&output.stderr), "", "{arguments:?}");
    }
}

#[test]
fn config_check_tells_place_and_remedy() {
    let path = file("check", "control: {}\nprivacy:\n  level: strict\nrecent:\n  memry: 1MiB\n");
    let output = weir(&["config", "check", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
    assert_eq!(text(&output.stderr), format!("{}:5:3: unknown key `memry`; did you mean `memory`?\n", path.display()));
    let path = file("good", "privacy: {level: standard}\n");
    let output = weir(&["config", "check", path.to_str().unwrap()]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    assert_eq!(text(&output.stdout), format!("{}: good\n", path.display()));
}

#[test]
fn config_show_and_schema_are_data() {
    let path = file("show", "privacy: {level: standard}\n");
    let output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["config", "show", "--json", "--set", "kernel.ring=1MiB", "-c", path.to_str().unwrap()])
        .env_clear()
        .env("WEIR_LOG__LEVEL", "warn")
        .output()
        .unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    let keys: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let from = |key: &str| keys.as_array().unwrap().iter().find(|entry| entry["key"] == key).unwrap()["from"].clone();
    assert_eq!(from("privacy.level"), format!("{}:1:18", path.display()));
    assert_eq!(from("log.level"), "WEIR_LOG__LEVEL");
    assert_eq!(from("kernel.ring"), "--set kernel.ring");
    assert_eq!(from("kernel.window"), "default");
    let schema: serde_json::Value = serde_json::from_slice(&weir(&["config", "schema"]).stdout).unwrap();
    assert_eq!(schema["$defs"]["Control"]["properties"]["socket"]["default"], "/run/weir/control.sock");
}

#[test]
fn manual_and_completions_know_every_verb() {
    let folder = std::env::temp_dir().join(format!("weir-man-{}", std::process::id()));
    let output = weir(&["man", "--into", folder.to_str().unwrap()]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    let page = weir(&["man"]);
    assert_eq!(page.status.code(), Some(0));
    assert!(text(&page.stdout).contains(".TH weir 1"));
    for shell in ["bash", "zsh", "fish"] {
        let script = weir(&["completions", shell]);
        assert_eq!(script.status.code(), Some(0));
        for verb in verbs(&[]) {
            let last = verb.last().unwrap();
            assert!(text(&script.stdout).contains(last.as_str()), "{shell} {verb:?}");
            assert!(folder.join(format!("weir-{}.1", verb.join("-"))).is_file(), "{verb:?}");
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_weir")).args(["config", "schema"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

#[test]
fn no_agent_is_exit_code_3_and_names_the_socket() {
    for verb in ["calls", "connections", "services", "stats", "reload"] {
        let output = weir(&[verb, "--socket", "/nonexistent/control.sock"]);
        assert_eq!(output.status.code(), Some(3), "{verb}");
        assert_eq!(text(&output.stdout), "");
        assert_eq!(
            text(&output.stderr),
            "weir: no agent answers at /nonexistent/control.sock: No such file or directory (os error 2); \
             start one with: weir run\n"
        );
    }
}

#[test]
fn the_example_configuration_is_good() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/weir.yaml");
    let output = weir(&["config", "check", path]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

/// Where output can't go, that is said where it can be; nothing panics.
#[test]
fn a_full_disk_behind_stdout_and_stderr() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let binary = || Command::new(env!("CARGO_BIN_EXE_weir"));
    let output = binary().args(["config", "schema"]).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "weir: writing to stdout: No space left on device (os error 28)\n");
    let status = binary().args(["config", "check", "/nonexistent"]).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(2));
}
