//! Go processes whose goroutines the kernel half tells apart, and the probes on their clients.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::path::Path;

use aya::maps::{HashMap as Table, MapData, MapError};
use aya::programs::Program as Loaded;
use aya::programs::uprobe::{UProbeLinkId, UProbeScope};
use weir_common::goroutine::GoProcess;

use super::facts::chain;
use super::load::{Half, Verdict};
use super::plan::Program;

/// Of an executable.
#[derive(Debug)]
struct Probe {
    link: Option<UProbeLinkId>,
    processes: usize,
}

/// All of them, by what its user knows executables by.
#[derive(Debug)]
pub struct Goroutines<K> {
    probes: HashMap<K, Probe>,
    processes: HashMap<u32, K>,
}

impl<K> Default for Goroutines<K> {
    fn default() -> Self {
        Self { probes: HashMap::new(), processes: HashMap::new() }
    }
}

/// The map of the kernel half.
pub(super) struct Rows(Table<MapData, u32, GoProcess>);

impl Rows {
    /// Its name.
    pub(super) const MAP: &'static str = "GO_PROCESSES";

    /// Takes it.
    pub(super) fn take(ebpf: &mut aya::Ebpf) -> Result<Self, MapError> {
        let map = ebpf.take_map(Self::MAP).ok_or_else(|| MapError::InvalidName { name: Self::MAP.to_owned() })?;
        Table::try_from(map).map(Self)
    }
}

impl<K: Copy + Eq + Hash> Goroutines<K> {
    /// How many processes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.processes.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Those processes.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.processes.keys().copied().collect()
    }

    /// A process began that runs `executable`, a file at `path` which hands requests over at `call`.
    pub fn begins(
        &mut self,
        half: &mut Half,
        (pid, row): (u32, &GoProcess),
        executable: K,
        (path, call): (&Path, Option<u64>),
    ) -> Result<(), String> {
        self.ends(half, pid);
        if let Entry::Vacant(place) = self.probes.entry(executable) {
            let link = call.map(|at| attach(half, path, at)).transpose()?;
            place.insert(Probe { link, processes: 0 });
        }
        if let Some(probe) = self.probes.get_mut(&executable) {
            probe.processes += 1;
        }
        self.processes.insert(pid, executable);
        half.go.0.insert(pid, row, 0).map_err(|error| {
            self.ends(half, pid);
            chain(&error)
        })
    }

    /// A process ended, or runs something else now.
    pub fn ends(&mut self, half: &mut Half, pid: u32) {
        let Some(executable) = self.processes.remove(&pid) else { return };
        // The kernel half may have done so itself.
        let _ = half.go.0.remove(&pid);
        let Entry::Occupied(mut place) = self.probes.entry(executable) else { return };
        place.get_mut().processes = place.get().processes.saturating_sub(1);
        if place.get().processes == 0
            && let Some(link) = place.remove().link
            && let Some(Loaded::UProbe(probe)) = half.program(Program::GoCall)
            && let Err(error) = probe.detach(link)
        {
            tracing::warn!(error = chain(&error), "detaching {}", Program::GoCall.name());
        }
    }

    /// All end.
    pub fn clear(&mut self, half: &mut Half) {
        for pid in self.pids() {
            self.ends(half, pid);
        }
    }
}

fn attach(half: &mut Half, path: &Path, at: u64) -> Result<UProbeLinkId, String> {
    match half.program(Program::GoCall) {
        Some(Loaded::UProbe(probe)) => {
            probe.attach(at, path, UProbeScope::AllProcesses).map_err(|error| format!("no probe: {}", chain(&error)))
        }
        _ => Err("the object has no such program".to_owned()),
    }
}

impl Half {
    /// Goroutines can be told apart, and are to be.
    #[must_use]
    pub fn tells_goroutines(&self) -> bool {
        self.verdicts.contains(&(Program::GoCall, Verdict::Attached)) && self.tells_reads()
    }
}
