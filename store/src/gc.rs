//! To be written: gc.
