//! The dependency graph, on one node and over two hosts.

mod edges;
mod shop;
