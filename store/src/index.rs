//! To be written: index.
