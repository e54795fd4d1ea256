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
