//! The foreground.
