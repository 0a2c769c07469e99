//! To be written: bundle.
