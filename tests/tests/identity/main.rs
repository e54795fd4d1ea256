//! Who a process is: the right service or `unknown`, never another one, and the rule that decided.

mod births;
mod places;
mod reuse;
mod servers;
mod spaces;
mod stage;
