//! To be written: resolve.
