//! To be written: layout.
