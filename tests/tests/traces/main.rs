//! Traces: what headers say (D5), and which outgoing call belongs to which incoming one (D6).

mod chains;
mod headers;
mod instrumented;
mod switch;
