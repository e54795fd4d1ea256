//! A receiver that comes back after a minute. Most of that is waiting, so other tests have the node meanwhile: this one's
//! agent watches a cgroup of its own.

use std::time::Duration;

use anyhow::Result;
use weir_tests::agent::Agent;
use weir_tests::cgroup::Cgroup;
use weir_tests::collector::{Collector, Ports};
use weir_tests::peers::load;
use weir_tests::peers::nginx::Nginx;
use weir_tests::wait;

#[test]
fn a15_a_receiver_that_comes_back_gets_what_waited() -> Result<()> {
    const REQUESTS: u64 = 2000;
    // Others may count every call of the node: as long as there are some of this one, nobody else has it.
    let node = Agent::none()?;
    let group = Cgroup::new("away")?;
    let nginx = group.inside(Nginx::plain)?;
    let ports = Ports::free()?;
    let cgroup = format!("kernel.cgroup={}", group.path().display());
    let endpoint = format!("otlp.endpoint=http://127.0.0.1:{}", ports.http);
    let settings = [cgroup.as_str(), &endpoint, "otlp.protocol=http/protobuf", "otlp.metrics=false"];
    let agent = Agent::on_host("away", "", &settings)?;
    let load = group.inside(|| load::h2load(REQUESTS, 4, &[nginx.url("/s/200")]))?;
    assert_eq!(load.errors, 0);
    let calls = agent.calls(&[nginx.port()], 2 * REQUESTS as usize)?;
    assert_eq!(calls.len() as u64, 2 * REQUESTS);
    drop(node);
    // A minute of being dead: retries have become rare.
    std::thread::sleep(Duration::from_mins(1));
    let _node = Agent::none()?;
    let collector = Collector::start(ports)?;
    wait::until(Duration::from_secs(40), "the spans", || {
        let spans = collector.spans()?;
        let whole = calls.iter().all(|call| spans.iter().any(|span| span.span.span_id == call.span_id));
        Ok((spans.len() >= calls.len() && whole).then_some(()))
    })?;
    agent.finish()
}
