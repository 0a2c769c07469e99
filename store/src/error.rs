//! To be written: error.
