//! To be written: scan.
