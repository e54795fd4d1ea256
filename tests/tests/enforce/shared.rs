//! A rule for an address that stands for many clients is refused, with figures, unless it is meant.

use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::netns::NetNs;
use weir_tests::peers::nginx::{Nginx, Setup};
use weir_tests::process;

use super::enforcing;

#[test]
fn a_rule_for_a_proxy_or_a_nat_is_refused() -> Result<()> {
    let (near, far) = (NetNs::new("server")?, NetNs::new("client")?);
    let many: Vec<String> = (2..10).map(|n| format!("10.80.0.{n}/24")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    NetNs::cable((&near, "s0", &["10.80.0.1/24"]), (&far, "c0", &many))?;
    let nginx = Nginx::start(&Setup { listen: &["10.80.0.1:PORT"], netns: Some(&near), ..Setup::default() })?;
    let forward = format!(
        "location / {{ proxy_pass http://10.80.0.1:{}; proxy_bind 10.80.0.2;
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }}",
        nginx.port()
    );
    let proxy =
        Nginx::start(&Setup { listen: &["10.80.0.2:PORT"], netns: Some(&far), server: &forward, ..Setup::default() })?;
    let agent = enforcing(&[])?;
    let curl = |client: usize, arguments: &[&str], port: u16, host: &str| -> Result<()> {
        let mut command = far.command("curl")?;
        command.args(["-s", "-o", "/dev/null", "-m", "10", "--interface", &format!("10.80.0.{client}")]);
        command.args(arguments).arg(format!("http://{host}:{port}/p"));
        let said = process::say(&mut command, Duration::from_secs(20))?;
        ensure!(said.code == 0, "curl ended with {}: {}", said.code, said.err);
        Ok(())
    };
    // Five clients behind the proxy, thrice each; one address with nine user agents, one with one.
    for n in 0..15 {
        curl(3 + n % 5, &[], proxy.port(), "10.80.0.2")?;
    }
    for n in 0..9 {
        curl(8, &["-A", &format!("browser {n}")], nginx.port(), "10.80.0.1")?;
        curl(9, &["-A", "one"], nginx.port(), "10.80.0.1")?;
    }
    agent.calls(&[nginx.port()], 2 * 33)?;
    let add = |id: &str, client: &str, more: &[&str]| {
        agent.say(&[&["block", "add", "--reason", "t", "--id", id, "--client", client], more].concat())
    };
    for dry in [&[][..], &["--dry-run"]] {
        let said = add("proxy", "10.80.0.2", dry)?;
        let figures = "15 of its 15 requests of the last 30 to 60 minutes say that they are forwarded for 5 different";
        ensure!(said.code == 1 && said.err.contains(figures) && said.err.contains("--force"), "{}", said.err);
    }
    let said = add("nat", "10.80.0.8", &[])?;
    let figures = "its 9 requests of the last 30 to 60 minutes name 9 different user agents";
    ensure!(said.code == 1 && said.err.contains(figures), "{}", said.err);
    let said = add("one", "10.80.0.9", &[])?;
    ensure!(said.code == 0, "{}", said.err);
    // A network is chosen with open eyes, and so is what is forced.
    ensure!(add("net", "10.80.0.0/28", &[])?.code == 0 && add("meant", "10.80.0.2", &["--force"])?.code == 0);
    ensure!(nginx.logged(33)?.len() == 33);
    agent.finish()
}
