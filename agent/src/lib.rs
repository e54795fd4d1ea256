//! Weir: kernel-level API observability and enforcement.
//!
//! The layers, from the ground up; each may use only what stands before it (`cargo xtask lint` checks):
//! words (`clock`, `meter`, `model`), leaves (`kernel`, `proto`, `tls`, `golang`, `identity`), `flow`,
//! judgement (`graph`, `catalog`, `policy`, `detect`, `redact`, `recent`), doors (`export`, `control`),
//! wiring (`config`, `app`), faces (`cli`, `tui`).

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod export;
pub mod flow;
pub mod golang;
pub mod graph;
pub mod identity;
pub mod kernel;
pub mod meter;
pub mod model;
pub mod policy;
pub mod proto;
pub mod recent;
pub mod redact;
pub mod tui;
