//! Names and numbers of signals.
