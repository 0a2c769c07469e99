//! To be written: verify.
