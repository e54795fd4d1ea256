//! `cargo xtask demo`: a shop of six services in six runtimes on two hosts, an agent on each, and behind them what a user
//! of OpenTelemetry has. What is shown is checked against what the shop's programs wrote themselves.

use std::{
    env,
    os::unix::process::CommandExt as _,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use weir_tests::{
    agent::Agent,
    backends::Backends,
    shop::{Shop, checks, truth::Truth},
};

use crate::{
    repo, run,
    setup::{self, Stage},
    shell,
};

/// Orders a second after the checks, so that there is something to look at.
const GENTLE: f64 = 2.0;
/// How often it is looked whether it shall end.
const LOOK: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Orders that are taken before what is shown of them is checked
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    orders: u64,
    /// Orders a second until then
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Go on for so many seconds after the checks; without it, until Ctrl-C
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
}

/// Sets up and builds, then starts anew with the tools of the set-up in front.
pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    if !shell::is_root() {
        bail!("hosts are network namespaces and cgroups here, which need root: sudo cargo xtask demo");
    }
    setup::prepare(Stage::Test)?;
    run::build()?;
    let own = env::current_exe().context("finding this program")?;
    let mut shop = Command::new(own);
    shop.args(["shop", "--orders", &arguments.orders.to_string(), "--rate", &arguments.rate.to_string()]);
    if let Some(seconds) = arguments.seconds {
        shop.args(["--for", &seconds.to_string()]);
    }
    Err(shop.env("PATH", shell::path()).env("WEIR_BIN", repo::weir()).exec()).context("starting the shop")
}

/// Opens the shop, checks, goes on. Whatever ends it, what it made is gone afterwards.
pub(crate) fn shop(arguments: &Arguments) -> Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ended)).context("listening to signals")?;
    }
    let goes_on = || !ended.load(Ordering::Relaxed);
    let step = |what: &str| -> Result<()> {
        ensure!(goes_on(), "ended before it was ready");
        eprintln!("demo: {what}");
        Ok(())
    };
    step("waits for tests that are running, if any: their agents would see this")?;
    let _node = Agent::none()?;
    step("Collector and Jaeger")?;
    let mut backends = Backends::start()?;
    step("nginx, Go, Python, Node, Java, Rust, Redis and PostgreSQL, in two network namespaces with a cgroup each")?;
    let shop = Shop::open()?;
    step("an agent on each host, and Prometheus")?;
    let grpc = backends.collector.ports().grpc;
    let (a, b) = (shop.watch(0, grpc)?, shop.watch(1, grpc)?);
    backends.scrape(&[a.metrics(), b.metrics()])?;
    step(&format!("{} orders, {} a second", arguments.orders, arguments.rate))?;
    shop.order(arguments.orders, f64::from(arguments.rate), &goes_on)?;
    let good = shown([&a, &b], &backends, &shop)?;
    let outcome = if goes_on() && good { look(arguments, [&a, &b], &backends, &shop, &goes_on) } else { Ok(()) };
    eprintln!("demo: taking everything down");
    outcome?;
    ensure!(good, "not everything that is shown is so");
    a.finish()?;
    b.finish()
}

/// Prints both graphs and every check; whether all are good.
fn shown(agents: [&Agent; 2], backends: &Backends, shop: &Shop) -> Result<bool> {
    let truth = Truth::of(shop)?;
    let checks = checks::all(agents, backends, &truth);
    for (host, agent) in ["host-a", "host-b"].into_iter().zip(agents) {
        println!("\n{host}$ weir graph\n{}", agent.say(&["graph"])?.out);
    }
    let mut good = true;
    for (what, found) in checks {
        match found {
            Ok(found) => println!("ok      {what}: {found}"),
            Err(error) => {
                good = false;
                println!("FAILED  {what}: {error:#}");
            }
        }
    }
    Ok(good)
}

/// Says where to look, and takes a few orders until it is time to end.
fn look(
    arguments: &Arguments,
    agents: [&Agent; 2],
    backends: &Backends,
    shop: &Shop,
    goes_on: &(impl Fn() -> bool + Sync),
) -> Result<()> {
    println!("\nJaeger       {}/api/traces?service=nginx&limit=1", backends.jaeger());
    if let Some(prometheus) = backends.prometheus() {
        println!("Prometheus   {prometheus}/graph?g0.expr=traces_service_graph_request_total&g0.tab=1");
    }
    for (host, agent) in ["host-a", "host-b"].into_iter().zip(agents) {
        println!("{host}       http://{}/metrics", agent.metrics());
        let socket = format!("WEIR_CONTROL__SOCKET={}", agent.socket().display());
        println!("             {socket} {} top", repo::weir().display());
    }
    println!("an order     {}\n", shop.by_hand());
    let end = arguments.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let goes_on = || goes_on() && end.is_none_or(|end| Instant::now() < end);
    eprintln!("demo: goes on with {GENTLE} orders a second{}", if end.is_none() { " until Ctrl-C" } else { "" });
    while goes_on() {
        shop.order(1, GENTLE, &goes_on)?;
        let next = Instant::now() + Duration::from_secs_f64(1.0 / GENTLE);
        while goes_on() && Instant::now() < next {
            thread::sleep(LOOK.min(next.saturating_duration_since(Instant::now())));
        }
    }
    Ok(())
}
