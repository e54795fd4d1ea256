//! D1: the shop on two hosts with an agent each, and what a user sees of it: both agents' graphs, spans in the Collector,
//! Jaeger, Prometheus.

use anyhow::Result;
use weir_tests::agent::Agent;
use weir_tests::backends::Backends;
use weir_tests::shop::truth::Truth;
use weir_tests::shop::{Shop, checks};

const ORDERS: u64 = 1000;

#[test]
fn d1_two_hosts_tell_one_graph_and_one_trace_an_order() -> Result<()> {
    // Two agents, and the place of one: this test is alone on the machine.
    let _node = Agent::none()?;
    let mut backends = Backends::start()?;
    let shop = Shop::open()?;
    let grpc = backends.collector.ports().grpc;
    let (a, b) = (shop.watch(0, grpc)?, shop.watch(1, grpc)?);
    backends.scrape(&[a.metrics(), b.metrics()])?;
    shop.order(ORDERS, 100.0, &|| true)?;
    let truth = Truth::of(&shop)?;
    anyhow::ensure!(truth.orders().len() as u64 == ORDERS, "{} orders", truth.orders().len());
    for (what, found) in checks::all([&a, &b], &backends, &truth) {
        let found = found.map_err(|error| error.context(what))?;
        println!("{what}: {found}");
    }
    a.finish()?;
    b.finish()
}
