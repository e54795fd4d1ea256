//! A shop of six services in six runtimes on two hosts (`tests/shop/README.md`), with its customers and its own truth.
//!
//! A host is a network namespace and a cgroup; an agent that watches the cgroup sees that host and nothing else. Customers
//! come from a third namespace, which nobody watches.

mod apps;
pub mod checks;
pub mod truth;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::agent::Agent;
use crate::cgroup::Cgroup;
use crate::netns::NetNs;
use crate::peers::nginx::Nginx;
use crate::place::Scratch;
use crate::process::Process;
use crate::wire::Wire;

/// Customers at a time.
const CUSTOMERS: u64 = 4;
/// First half of the span ids that customers send.
const CUSTOMER: u64 = 0xc0ff_ee00_0000_0000;

const A: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 2);
const DOOR: Ipv4Addr = Ipv4Addr::new(10, 88, 9, 1);
/// Where customers come from.
pub const STREET: Ipv4Addr = Ipv4Addr::new(10, 88, 9, 2);

/// A service of the shop: its name as Weir shall tell it, where it listens, and on which host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// `service.name`.
    pub name: &'static str,
    /// Its host: 0 is a, 1 is b.
    pub host: usize,
    /// TCP port.
    pub port: u16,
}

/// Services and stores, in the order in which an order comes by.
pub const PLACES: [Place; 8] = [
    Place { name: "nginx", host: 0, port: 8080 },
    Place { name: "cart", host: 0, port: 8001 },
    Place { name: "redis", host: 0, port: 6379 },
    Place { name: "pricing", host: 1, port: 8002 },
    Place { name: "postgres", host: 1, port: 5432 },
    Place { name: "stock", host: 0, port: 8003 },
    Place { name: "payment", host: 1, port: 8004 },
    Place { name: "ledger", host: 1, port: 8005 },
];

/// Looks a place up by its name.
pub fn place(name: &str) -> Result<Place> {
    PLACES.into_iter().find(|place| place.name == name).with_context(|| format!("no {name} in the shop"))
}

impl Place {
    /// Where it is reached from both hosts.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        (if self.host == 0 { A } else { B }, self.port).into()
    }
}

/// One of the two hosts. What is in it ends before it does.
#[derive(Debug)]
pub struct Host {
    running: Vec<Process>,
    nginx: Option<Nginx>,
    /// Its network.
    pub netns: NetNs,
    /// What runs on it.
    pub cgroup: Cgroup,
}

/// The running shop.
#[derive(Debug)]
pub struct Shop {
    /// a and b.
    pub hosts: [Host; 2],
    street: NetNs,
    scratch: Scratch,
    ordered: AtomicU64,
}

impl Drop for Shop {
    fn drop(&mut self) {
        for process in self.hosts.iter_mut().flat_map(|host| &mut host.running).rev() {
            // In order first, so that PostgreSQL takes its children along; whoever does not is killed.
            let _ = process.signal(rustix::process::Signal::INT).and_then(|()| process.wait(Duration::from_secs(5)));
        }
    }
}

impl Shop {
    /// Starts it; returns when every service listens. Nothing was ordered by then.
    pub fn open() -> Result<Self> {
        let scratch = Scratch::new("shop")?;
        let host = |name: &str| -> Result<Host> {
            Ok(Host { running: Vec::new(), nginx: None, netns: NetNs::new(name)?, cgroup: Cgroup::new(name)? })
        };
        let hosts = [host("host-a")?, host("host-b")?];
        let street = NetNs::new("street")?;
        let [a, b] = &hosts;
        let cable = |address: Ipv4Addr| format!("{address}/24");
        NetNs::cable((&a.netns, "b0", &[&cable(A)]), (&b.netns, "a0", &[&cable(B)]))?;
        NetNs::cable((&a.netns, "street0", &[&cable(DOOR)]), (&street, "shop0", &[&cable(STREET)]))?;
        let mut shop = Self { hosts, street, scratch, ordered: AtomicU64::new(0) };
        apps::start(&mut shop)?;
        Ok(shop)
    }

    /// What the agent of a host (0 or 1) is told: where to export, who else is there, and names that programs can't have
    /// of themselves.
    #[must_use]
    pub fn configuration(&self, host: usize, otlp: u16) -> String {
        let other: Vec<Place> = PLACES.into_iter().filter(|place| place.host != host).collect();
        let services: Vec<String> =
            other.iter().map(|place| format!("{{ port: {}, name: {} }}", place.port, place.name)).collect();
        let address = if host == 0 { B } else { A };
        let cgroup = self.hosts.get(host).map(|host| host.cgroup.path().display().to_string()).unwrap_or_default();
        format!(
            "kernel: {{ cgroup: {cgroup} }}
kubernetes: {{ mode: off }}
otlp: {{ endpoint: \"http://127.0.0.1:{otlp}\", interval: 1s }}
identity:
  rules:
    - {{ command_line: \"*redis-server*\", name: redis }}
    - {{ command_line: \"*Payment*\", name: payment }}
hosts:
  - {{ addresses: [{address}], services: [{}] }}
",
            services.join(", ")
        )
    }

    /// Starts the agent of a host (0 or 1), exporting to an OTLP receiver (gRPC) at this port of 127.0.0.1.
    pub fn watch(&self, host: usize, otlp: u16) -> Result<Agent> {
        let name = if host == 0 { "host-a" } else { "host-b" };
        Agent::on_host(name, &self.configuration(host, otlp), &[])
    }

    /// How a person orders by hand.
    #[must_use]
    pub fn by_hand(&self) -> String {
        format!("ip netns exec {} curl -i http://{DOOR}:8080/orders/1", self.street.name())
    }

    /// Orders so far.
    pub fn ordered(&self) -> u64 {
        self.ordered.load(Ordering::Relaxed)
    }

    /// Takes `count` orders, `rate` a second, from customers who each keep a connection, unless `goes_on` ends it before.
    /// Every answer must be the one that the order's number asks for.
    pub fn order(&self, count: u64, rate: f64, goes_on: &(impl Fn() -> bool + Sync)) -> Result<()> {
        let first = self.ordered() + 1;
        let (next, begin) = (AtomicU64::new(0), Instant::now());
        self.street.inside(|| {
            thread::scope(|scope| {
                let customers: Vec<_> = (0..CUSTOMERS.min(count))
                    .map(|_| {
                        scope.spawn(|| -> Result<()> {
                            let mut wire = Wire::connect((DOOR, 8080).into())?;
                            loop {
                                let at = next.fetch_add(1, Ordering::Relaxed);
                                if at >= count || !goes_on() {
                                    return Ok(());
                                }
                                let due = begin + Duration::from_secs_f64(at as f64 / rate);
                                thread::sleep(due.saturating_duration_since(Instant::now()));
                                buy(&mut wire, first + at)?;
                                self.ordered.fetch_add(1, Ordering::Relaxed);
                            }
                        })
                    })
                    .collect();
                customers.into_iter().try_for_each(|customer| {
                    customer.join().map_err(|_| anyhow::anyhow!("a customer failed")).flatten()
                })
            })
        })
    }

    fn log(&self, service: &str) -> PathBuf {
        self.scratch.join(&format!("{service}.log"))
    }
}

/// The trace of an order, as its customer names it: 32 hex digits.
#[must_use]
pub fn trace_of(order: u64) -> String {
    format!("5409{order:028x}")
}

/// The span that a customer names as the parent of its order: 16 hex digits.
#[must_use]
pub fn customers_span(order: u64) -> String {
    format!("{:016x}", CUSTOMER + order)
}

/// Whether the ledger refuses an order.
#[must_use]
pub fn is_refused(order: u64) -> bool {
    order % 100 == 13
}

fn buy(wire: &mut Wire, order: u64) -> Result<()> {
    let trace = format!("00-{}-{}-01", trace_of(order), customers_span(order));
    wire.send(format!("GET /orders/{order} HTTP/1.1\r\nHost: shop.test\r\ntraceparent: {trace}\r\n\r\n"))?;
    let status = wire.answer("GET")?.status()?;
    ensure!(status == if is_refused(order) { 503 } else { 200 }, "order {order} was answered with {status}");
    Ok(())
}

fn read_log(path: &std::path::Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
