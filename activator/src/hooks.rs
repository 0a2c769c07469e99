//! To be written: hooks.
