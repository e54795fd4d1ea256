//! What pages show: each from answers to rows, without a world.

pub(super) mod calls;
pub(super) mod connections;
pub(super) mod drops;
pub(super) mod edges;
pub(super) mod endpoints;
pub(super) mod ledger;
pub(super) mod services;
