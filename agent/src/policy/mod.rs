//! Drop decisions: the rule language, its order, what it compiles to, and the evidence of its use. No I/O here: rules
//! and facts come in as values, plain rows of `weir_common::verdict` go out.

pub mod audit;
pub mod check;
pub mod confine;
pub mod gcra;
pub mod list;
pub mod machine;
pub mod meet;
pub mod pattern;
pub mod prefix;
pub mod proxies;
pub mod rule;
pub mod set;
mod shape;
pub mod written;

#[cfg(test)]
mod tests;
