//! The wiring: facts → plan → load, then the threads and what they hand each other.

mod blocks;
mod capture;
pub mod doctor;
mod door;
mod feeds;
mod goroutines;
mod instrumented;
mod judge;
mod kubernetes;
mod memory;
mod older;
mod precedence;
mod refusals;
mod reload;
mod stats;
mod translate;
mod whole;

use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clock::{self, Offset};
use crate::config::{Loaded, Settings, Sources};
use crate::export::prometheus::{self, Page, Snapshot};
use crate::export::{Bound, EndpointError, Ledger, Metrics, Sampler};
use crate::flow::{Chains, Worker};
use crate::graph::{self, Graph};
use crate::identity::{Counts, Resolver, Seen, kube::Watch};
use crate::kernel::addresses;
use crate::kernel::facts::Facts;
use crate::kernel::load::{self, Half};
use crate::kernel::plan::{self, Unfit};
use crate::kernel::ring::Reader;
use crate::meter::Meter;
use crate::recent::{Disk, Recent};
use crate::redact::{BadTemplate, Redactor};

pub use crate::policy::audit;
use crate::policy::written::WrittenRule;
use blocks::Blocks;
use capture::Ask;
pub use capture::Open;
use feeds::Feeds;
use judge::Bench;
pub use judge::Viewer;
pub use memory::one_heap;
use older::Older;
use precedence::Precedence;
pub use stats::{ProgramRow, Row, Stats};

/// Batches that may wait for the judging thread.
const BATCHES: usize = 1024;
/// Batches of calls that were judged and wait to be used again.
const RETURNS: usize = 8;
/// How long the capturing thread may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How often the kernel half is told that the agent lives, and rules whose time is over are ended.
const BEAT: Duration = Duration::from_millis(500);
/// How often the allow-list is gathered anew.
const AROUND: Duration = Duration::from_secs(15);
/// How long an answer about readiness holds: whoever asks more often does not keep the capturing thread from its work.
const READY: Duration = Duration::from_secs(1);
/// How long exporters may take to send what waits, at the end.
const FLUSH: Duration = Duration::from_secs(3);

/// Why the agent could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This node can't run Weir.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The kernel half was refused.
    #[error(transparent)]
    Load(#[from] load::Error),
    /// How full the ring is can't be seen.
    #[error("mapping the ring's positions")]
    Ring(#[source] std::io::Error),
    /// A thread could not be started.
    #[error("starting a thread")]
    Thread(#[source] std::io::Error),
    /// Names of services.
    #[error("identity rules")]
    Identity(#[from] crate::identity::SettingsError),
    /// Drop rules.
    #[error(transparent)]
    Rules(#[from] blocks::Refused),
    /// Route templates.
    #[error("routes.templates")]
    Routes(#[from] BadTemplate),
    /// Where OTLP goes.
    #[error("OTLP")]
    Endpoint(#[from] EndpointError),
    /// The Prometheus page.
    #[error(transparent)]
    Listen(#[from] prometheus::ListenError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] crate::control::Error),
    /// The capturing thread is gone or did not answer.
    #[error("the capturing thread did not answer within {} s", ANSWER.as_secs())]
    Busy,
}

impl Error {
    /// The configuration is to blame, as far as that only shows where it is taken: trying again changes nothing.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Identity(_) | Self::Routes(_) | Self::Endpoint(_) => true,
            Self::Rules(refused) => matches!(refused, blocks::Refused::Config(..)),
            _ => false,
        }
    }

    /// This node can't run Weir, whatever its settings.
    #[must_use]
    pub fn is_unfit(&self) -> bool {
        matches!(self, Self::Unfit(_) | Self::Load(load::Error::Object(_) | load::Error::Essential { .. }))
    }
}

/// Sets what is logged: directives as of `log.level`, checked.
pub type SetLog = Box<dyn Fn(&str) + Send + Sync>;

/// What everybody may look at while the agent runs.
pub struct Core {
    facts: Facts,
    half: Arc<Mutex<Half>>,
    meter: Arc<Meter>,
    asks: SyncSender<Ask>,
    bench: Arc<RwLock<Bench>>,
    recent: Arc<Recent>,
    metrics: Arc<Metrics>,
    graph: Arc<Mutex<Graph>>,
    blocks: Arc<Blocks>,
    feeds: Feeds,
    exported: Arc<Ledger>,
    kubernetes: Option<Arc<Watch>>,
    older: Arc<Older>,
    goroutines: Arc<goroutines::Watch>,
    loaded: Mutex<Loaded>,
    sources: Sources,
    log: SetLog,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    /// Whether the capturing thread was at work, and when that was asked.
    ready: Mutex<Option<(Instant, Result<(), String>)>>,
    started: Instant,
}

/// The agent at work.
pub struct Agent {
    core: Arc<Core>,
    precedence: Arc<Precedence>,
    threads: Vec<JoinHandle<()>>,
    page: Option<prometheus::Server>,
    control: Option<crate::control::Server>,
}

impl Agent {
    /// Loads the kernel half and starts the threads. Must be called within a tokio runtime.
    pub async fn start(loaded: Loaded, sources: Sources, viewer: Option<Viewer>, log: SetLog) -> Result<Self, Error> {
        let started = Instant::now();
        let settings = &loaded.settings;
        let holder = door::take(&settings.socket)?;
        let facts = Facts::gather(settings.kernel.cgroup.as_deref());
        let plan = plan::plan(&facts)?;
        // What may fail for a reason of its user's comes before anything is attached.
        let redactor = Redactor::new(&translate::redact(settings))?;
        let blocks = Arc::new(Blocks::new(settings)?);
        let mut resolver = Resolver::new(translate::identity(settings))?;
        let (meter, clock, older) = (Arc::new(Meter::default()), Arc::new(Offset::new()), Arc::new(Older::default()));
        let recent = recent(settings, &meter)?;
        let graph = empty_graph(settings);
        let (metrics, exported) = (measured(settings, &graph), Arc::new(Ledger::default()));
        let exporter = reload::exporter(settings, &metrics, &exported)?;
        let own = std::process::id();
        let to_load = translate::load(settings, own);
        let (half, line) = load::load(&facts, &plan, &to_load)?;
        doctor::warn(&doctor::examine(&facts, Some(&half.verdicts)));
        let chains = Chains::new(half.tells_reads(), Arc::clone(&meter));
        let go = half.tells_goroutines();
        let half = Arc::new(Mutex::new(half));
        let (goroutines, finder) = goroutines::watch(&half, go);
        let kubernetes = kubernetes::start(&settings.kubernetes, &meter, &blocks).map(|(watch, news)| {
            resolver.watch(news);
            Arc::new(watch)
        });
        let bench = Arc::new(RwLock::new(Bench::new(settings, redactor, exporter)));
        let (asks, asked) = sync_channel(16);
        let (batches, judged) = sync_channel(BATCHES);
        let (returns, returned) = sync_channel(RETURNS);
        let reader = Reader::new(line.ring, to_load.ring);
        let (precedence, level) = (Arc::new(Precedence::default()), reader.level().map_err(Error::Ring)?);
        let capture = capture::Capture {
            reader,
            foreign: line.foreign,
            chains,
            worker: Worker::new(translate::flow(settings), own, Arc::clone(&meter), Arc::clone(&clock))
                .beside(Arc::clone(&settings.hosts)),
            resolver,
            meter: Arc::clone(&meter),
            clock,
            asks: asked,
            batches,
            returned,
            blocks: Arc::clone(&blocks),
            known: blocks::groups::Known::default(),
            refusals: refusals::Refusals::default(),
            precedence: Arc::clone(&precedence),
            older: Arc::clone(&older),
            goroutines: Arc::clone(&goroutines),
        };
        let judge = judge::Judge {
            batches: judged,
            returns,
            bench: Arc::clone(&bench),
            recent: Arc::clone(&recent),
            metrics: Arc::clone(&metrics),
            graph: Arc::clone(&graph),
            blocks: Arc::clone(&blocks),
            meter: Arc::clone(&meter),
            instruments: instrumented::Instruments::default(),
            viewer,
            precedence: Arc::clone(&precedence),
        };
        let threads = vec![
            thread("weir-capture", || capture.run())?,
            thread("weir-judge", || judge.run())?,
            thread("weir-golang", || finder.run())?,
            precedence.start(level).map_err(Error::Thread)?,
        ];
        // The kernel half watches already: what it tells while programs of the gate load is to be taken.
        blocks.take(Arc::clone(&half), precedence.clone(), settings.mode);
        let (prometheus, rules) = (settings.prometheus, settings.clone());
        let core = Arc::new(Core {
            facts,
            half,
            meter,
            asks,
            bench,
            recent,
            metrics,
            graph,
            feeds: Feeds::new(Arc::clone(&blocks), kubernetes.clone()),
            blocks,
            exported,
            kubernetes,
            older,
            goroutines,
            loaded: Mutex::new(loaded),
            sources,
            log,
            reloading: tokio::sync::Mutex::default(),
            ready: Mutex::default(),
            started,
        });
        tend(&core.blocks);
        core.feeds.configure(&rules);
        let mut agent = Self { core, precedence, threads, page: None, control: None };
        agent.open(holder, prometheus).await?;
        Ok(agent)
    }

    /// Opens the doors through which it is asked.
    async fn open(
        &mut self,
        holder: Option<crate::control::Holder>,
        page: Option<std::net::SocketAddr>,
    ) -> Result<(), Error> {
        if let Some(holder) = holder {
            self.control = Some(door::open(holder, &self.core)?);
        }
        if let Some(address) = page {
            self.page = Some(prometheus::Server::start(address, self.core.page()).await?);
        }
        Ok(())
    }

    /// What everybody may look at.
    #[must_use]
    pub fn core(&self) -> Arc<Core> {
        Arc::clone(&self.core)
    }

    /// Ends it in order: programs' records are drained, running calls are told as `in_flight`, what waits is exported.
    pub async fn stop(self) {
        self.core.feeds.stop();
        self.core.blocks.stop();
        self.precedence.end();
        self.core.goroutines.stop();
        // A thread that is gone already can't be told.
        let _ = self.core.asks.send(Ask::Stop);
        let (threads, control) = (self.threads, self.control);
        let joined = tokio::task::spawn_blocking(move || {
            drop(control);
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a thread of the agent panicked");
                }
            }
        });
        if let Err(error) = joined.await {
            tracing::error!(%error, "waiting for the agent's threads");
        }
        let exporter = self.core.bench.write().unwrap_or_else(PoisonError::into_inner).exporter.take();
        if let Some(exporter) = exporter {
            exporter.stop(FLUSH).await;
        }
    }
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(Error::Thread)
}

/// Who calls whom: nobody yet.
fn empty_graph(settings: &Settings) -> Arc<Mutex<Graph>> {
    let graph = Graph::new(graph::Settings::default(), clock::unix_ns()).beside(Arc::clone(&settings.hosts));
    Arc::new(Mutex::new(graph))
}

/// Metrics, those of the graph's edges among them.
fn measured(settings: &Settings, graph: &Arc<Mutex<Graph>>) -> Arc<Metrics> {
    let metrics = Arc::new(Metrics::new(Bound::default()));
    relate(&metrics, graph);
    metrics.sample(Sampler::new(settings.traces.sample));
    metrics
}

/// The store of recent calls.
fn recent(settings: &Settings, meter: &Arc<Meter>) -> Result<Arc<Recent>, Error> {
    let disk = match &settings.recent.disk {
        Some((path, size)) => Some(Disk::start(path, *size, Arc::clone(meter)).map_err(Error::Thread)?),
        None => None,
    };
    let memory = usize::try_from(settings.recent.memory).unwrap_or(usize::MAX);
    Ok(Arc::new(Recent::new(memory, disk, Arc::clone(meter))))
}

/// Service-graph metrics by OTLP come from the graph.
fn relate(metrics: &Metrics, graph: &Arc<Mutex<Graph>>) {
    let graph = Arc::clone(graph);
    metrics.relate(move || {
        let mut graph = graph.lock().unwrap_or_else(PoisonError::into_inner);
        graph.tick(clock::monotonic_ns());
        graph.relations().iter().map(translate::relation).collect()
    });
}

/// Starts what is done every so often while the agent lives: for its memory, and for the drop rules.
fn tend(blocks: &Arc<Blocks>) {
    tokio::spawn(memory::give_back());
    for (period, act) in [(BEAT, Blocks::beat as fn(&Blocks)), (AROUND, Blocks::look_around)] {
        tokio::spawn(every(period, Arc::downgrade(blocks), act));
    }
    notice(Arc::downgrade(blocks));
}

/// Gathers the allow-list anew when this node gets an address: a bridge for pods may come with the first of them, and a
/// kubelet's probes from its address.
fn notice(blocks: Weak<Blocks>) {
    let noticed = addresses::follow(move || blocks.upgrade().map(|blocks| blocks.look_around()).is_some());
    if let Err(error) = noticed {
        tracing::warn!(%error, "new addresses of this node are noticed late");
    }
}

/// Does something for the drop rules every so often, until the agent ends: tells the kernel half that the agent lives.
async fn every(period: Duration, blocks: Weak<Blocks>, act: fn(&Blocks)) {
    let mut ticks = tokio::time::interval(period);
    loop {
        ticks.tick().await;
        let Some(blocks) = blocks.upgrade() else { return };
        // A change in progress may take its time; the runtime is not to wait for it.
        if tokio::task::spawn_blocking(move || act(&blocks)).await.is_err() {
            tracing::error!("the thread that keeps drop rules alive panicked");
        }
    }
}

impl Core {
    fn half(&self) -> MutexGuard<'_, Half> {
        self.half.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask<T>(&self, ask: impl FnOnce(SyncSender<T>) -> Ask) -> Result<T, Error> {
        let (to, from) = sync_channel(1);
        self.asks.try_send(ask(to)).map_err(|_| Error::Busy)?;
        from.recv_timeout(ANSWER).map_err(|_| Error::Busy)
    }

    /// Takes a drop rule of a detector of this agent, in the place of its own one with the same id; gives the id. It holds
    /// for an hour where it does not say otherwise, and only counts unless it says `enforce`.
    pub fn detected(&self, detector: &str, rule: &WrittenRule) -> Result<Arc<str>, Error> {
        Ok(self.blocks.detected(detector, rule)?)
    }

    /// Every live connection, its owner's service and the other end's where it is proven. Blocks for up to 2 s.
    pub fn connections(&self) -> Result<Vec<Open>, Error> {
        self.ask(Ask::Connections)
    }

    /// Services seen, and what the resolver did. Blocks for up to 2 s.
    pub fn services(&self) -> Result<(Vec<Seen>, Counts), Error> {
        self.ask(Ask::Services)
    }

    /// Who calls whom, as it stands now.
    pub fn graph(&self) -> MutexGuard<'_, Graph> {
        let mut graph = self.graph.lock().unwrap_or_else(PoisonError::into_inner);
        graph.tick(clock::monotonic_ns());
        graph
    }

    /// Who calls whom as it stands now, with connections that are open; with `since` (nanoseconds since the Unix epoch),
    /// what was used after it. Blocks for up to 2 s; open connections are left out where nobody answers by then.
    #[must_use]
    pub fn graph_now(&self, since: Option<u64>) -> graph::Snapshot {
        let (rows, clock) = (self.connections().unwrap_or_default(), Offset::new());
        let used = |at| since.is_none_or(|since| clock.unix_ns(at) >= since);
        let open = rows
            .iter()
            .filter(|open| used(open.connection.last_at))
            .map(|Open { connection, service, peer, .. }| graph::Open { connection, service, peer: peer.as_deref() });
        let graph = self.graph();
        let mut snapshot = graph.snapshot(since);
        graph.add_open(&mut snapshot, open);
        snapshot
    }

    /// Recent calls.
    #[must_use]
    pub fn recent(&self) -> &Arc<Recent> {
        &self.recent
    }

    /// Facts, verdicts and blind spots.
    #[must_use]
    pub fn doctor(&self) -> doctor::Report {
        let mut report = doctor::examine(&self.facts, Some(&self.half().verdicts));
        let programs = report.rows.iter().rposition(|row| row.section == "program").map_or(0, |at| at + 1);
        report.rows.splice(programs..programs, self.blocks.doctor());
        report.rows.push(self.older.row());
        report.rows.extend(self.goroutines.row());
        report.rows.extend(self.kubernetes.iter().flat_map(|watch| kubernetes::rows(&watch.state)));
        report
    }

    fn page(self: &Arc<Self>) -> Page {
        let (core, ready) = (Arc::clone(self), Arc::clone(self));
        Page {
            metrics: Arc::clone(&self.metrics),
            ledger: Arc::clone(&self.exported),
            snapshot: Box::new(move || core.snapshot()),
            ready: Box::new(move || ready.ready()),
            node: translate::node(None),
        }
    }

    /// Whether the capturing thread does its work. Blocks for up to 2 s.
    fn ready(&self) -> Result<(), String> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((asked, answer)) = &*ready
            && asked.elapsed() < READY
        {
            return answer.clone();
        }
        let answer = self.ask(Ask::Alive).map_err(|error| error.to_string());
        *ready = Some((Instant::now(), answer.clone()));
        answer
    }

    fn snapshot(&self) -> Snapshot {
        let own = stats::own();
        // None is a number too: a panel of shares needs it.
        let mut connections: std::collections::BTreeMap<_, u64> = [(("plaintext", ""), 0)].into();
        let open = self.connections().unwrap_or_default().into_iter().map(|open| open.connection);
        for row in open.filter(|row| !row.own) {
            let key = (row.visibility.as_str(), row.visibility.reason().unwrap_or_default());
            *connections.entry(key).or_default() += 1;
        }
        let programs = self.half().runs().into_iter().map(|(program, runs)| prometheus::Program {
            name: program.name().to_owned(),
            runs: runs.count,
            seconds: runs.ns as f64 / 1e9,
        });
        Snapshot {
            messages: self.messages().into_iter().map(|row| (row.stage, row.reason, row.count)).collect(),
            chains: self.chains().into_iter().map(|row| (row.stage, row.reason, row.count)).collect(),
            connections: connections.into_iter().map(|((visibility, why), n)| (visibility, why, n)).collect(),
            programs: programs.collect(),
            blocked: self.blocks.counts(),
            trips: self.blocks.trips(),
            feeds: self.feeds.rows().iter().map(translate::feed).collect(),
            relations: self.graph().relations().iter().map(translate::relation).collect(),
            map_bytes: Some(self.half().map_bytes()),
            cpu_seconds: Some(own.cpu_seconds),
            resident_bytes: Some(own.resident_bytes),
            started: Some(clock::unix_ns() as f64 / 1e9 - self.started.elapsed().as_secs_f64()),
        }
    }
}
