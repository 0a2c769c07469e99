//! To be written: tree.
