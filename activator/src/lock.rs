//! To be written: lock.
