//! Pods and Services of a real API server name processes and addresses; and what happens when it does not tell.

mod controllers;
mod names;
mod outage;
mod peers;
mod policies;
mod scale;
mod shared;
mod stage;
