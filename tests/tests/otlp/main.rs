//! A15: export to a real OpenTelemetry Collector, and to receivers that are dead, slow or unwilling.
//! test-threads: 2

mod away;
mod delivery;
mod faults;
