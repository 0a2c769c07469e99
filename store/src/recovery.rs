//! To be written: recovery.
