//! Chains as the kernel half would tell of them.
