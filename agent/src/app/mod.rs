//! The wiring: facts → plan → load, then the threads and what they hand each other.

mod capture;
mod judge;

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::clock::Offset;
use crate::config::Settings;
use crate::flow::Worker;
use crate::identity::Resolver;
use crate::kernel::facts::Facts;
use crate::kernel::load::{self, Half};
use crate::kernel::plan::{self, Plan, Unfit};
use crate::kernel::ring::Reader;
use crate::meter::Meter;

pub use judge::Viewer;

/// Batches that may wait for the judging thread.
const BATCHES: usize = 256;

/// Why the agent could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This node can't run Weir.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The kernel half was refused.
    #[error(transparent)]
    Load(#[from] load::Error),
    /// A thread could not be started.
    #[error("starting a thread")]
    Thread(#[source] std::io::Error),
    /// Names of services.
    #[error("identity settings")]
    Identity(#[source] crate::identity::SettingsError),
}

/// The agent at work.
pub struct Agent {
    asks: SyncSender<capture::Ask>,
    threads: Vec<JoinHandle<()>>,
    half: Half,
}

impl Agent {
    /// Loads the kernel half and starts the threads.
    pub fn start(settings: &Settings, viewer: Option<Viewer>) -> Result<Self, Error> {
        let facts = Facts::gather(settings.kernel.cgroup.as_deref());
        let plan: Plan = plan::plan(&facts)?;
        let own = std::process::id();
        let (half, ring) = load::load(
            &facts,
            &plan,
            &load::Settings { ring: settings.kernel.ring, cgroup: settings.kernel.cgroup.clone(), own },
        )?;
        let (meter, clock) = (Arc::new(Meter::default()), Arc::new(Offset::new()));
        let (asks, asked) = sync_channel(16);
        let (batches, judged) = sync_channel(BATCHES);
        let capture = capture::Capture {
            reader: Reader::new(ring),
            worker: Worker::new(crate::flow::Settings::default(), own, Arc::clone(&meter), Arc::clone(&clock)),
            resolver: Resolver::new(crate::identity::Settings::default()).map_err(Error::Identity)?,
            meter,
            clock,
            asks: asked,
            batches,
        };
        let judge = judge::Judge { batches: judged, viewer };
        let start = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(Error::Thread)
        };
        let threads =
            vec![start("weir-capture", Box::new(|| capture.run()))?, start("weir-judge", Box::new(|| judge.run()))?];
        Ok(Self { asks, threads, half })
    }
}
