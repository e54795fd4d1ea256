//! Typed handles over kernel maps.

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray};
use weir_common::knob::Slot;

/// The kernel half's counters.
pub struct Counts(PerCpuArray<MapData, u64>);

impl std::fmt::Debug for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counts")
    }
}

impl Counts {
    /// Name of the map.
    pub const MAP: &'static str = "COUNTS";

    /// Takes the map.
    pub fn new(map: Map) -> Result<Self, MapError> {
        PerCpuArray::try_from(map).map(Self)
    }

    /// Sum over all CPUs; 0 where it can't be read.
    #[must_use]
    pub fn get(&self, slot: Slot) -> u64 {
        self.0.get(&slot.0, 0).map_or(0, |values| values.iter().sum())
    }
}

/// What the kernel half knows of threads and processes that take requests.
pub(super) struct Errands {
    walks: HashMap<MapData, [u64; 2], [u8; 32]>,
    callers: HashMap<MapData, u32, [u8; 16]>,
}

impl Errands {
    /// Names of the maps.
    pub(super) const MAPS: [&'static str; 2] = ["WALKS", "CALLERS"];

    /// Takes the maps.
    pub(super) fn take(ebpf: &mut aya::Ebpf) -> Result<Self, MapError> {
        let [walks, callers] = Self::MAPS;
        let mut map = |name: &str| ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() });
        Ok(Self { walks: map(walks)?.try_into()?, callers: map(callers)?.try_into()? })
    }

    /// Forgets all of them. What can't be removed makes no call certain: it only takes certainty away.
    pub(super) fn clear(&mut self) {
        let (walks, callers): (Vec<[u64; 2]>, Vec<u32>) =
            (self.walks.keys().flatten().collect(), self.callers.keys().flatten().collect());
        for key in callers {
            let _ = self.callers.remove(&key);
        }
        for key in walks {
            let _ = self.walks.remove(&key);
        }
    }
}

/// Connections that the kernel half need not watch any more.
pub struct Foreign(HashMap<MapData, u64, u8>);

impl std::fmt::Debug for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Foreign")
    }
}

impl Foreign {
    /// Name of the map.
    pub const MAP: &'static str = "FOREIGN";

    /// Takes the map.
    pub fn new(map: Map) -> Result<Self, MapError> {
        HashMap::try_from(map).map(Self)
    }

    /// Adds a connection by its cookie.
    pub fn add(&mut self, cookie: u64) -> Result<(), MapError> {
        self.0.insert(cookie, 1, 0)
    }
}
