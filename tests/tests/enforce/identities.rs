//! Rules that name identities come and go; nobody keeps the number of one that is gone.

use anyhow::{Result, ensure};
use serde_json::json;
use weir_tests::agent;
use weir_tests::peers::nginx::Nginx;

use super::{curl, enforcing};

/// The identity of a rule that is gone leaves its number to another one; who had it before is not met.
#[test]
fn a_number_that_is_given_anew_is_nobody_of_before() -> Result<()> {
    let nginx = Nginx::plain()?;
    let agent = enforcing(&[])?;
    let is_answered = || Ok::<_, anyhow::Error>(curl(&[&nginx.url("/one")])?.is_ok());
    for (id, answered, key, name) in [
        ("one", false, "service", "nginx"),
        ("two", true, "service", "somebody-else"),
        ("three", false, "process", "nginx"),
        ("four", true, "process", "somebody-else"),
    ] {
        ensure!(is_answered()?, "before {id}");
        let rule = json!({ "id": id, "server": { key: name }, "mode": "enforce", "force": true }).to_string();
        let (status, said) = agent::ask(&agent.socket(), "POST", "/v1/blocks", &rule)?;
        ensure!(status / 100 == 2, "{id}: {status} {said}");
        ensure!(is_answered()? == answered, "{id}: {key} {name}");
        ensure!(agent.say(&["block", "remove", id])?.code == 0);
    }
    agent.finish()
}
