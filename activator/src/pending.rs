//! To be written: pending.
