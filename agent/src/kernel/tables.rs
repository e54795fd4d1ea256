//! Typed handles over kernel maps.

use aya::maps::{Map, MapData, MapError, PerCpuArray};
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
