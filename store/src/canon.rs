//! To be written: canon.
