//! A15: export to a real OpenTelemetry Collector, and to receivers that are dead, slow or unwilling.

mod delivery;
mod faults;
