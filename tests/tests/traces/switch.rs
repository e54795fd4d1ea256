//! `traces.chains` turns it on and off.
