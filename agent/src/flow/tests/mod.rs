//! Whole conversations through a worker.

mod calls;
mod loss;
mod order;
mod table;
mod wire;
