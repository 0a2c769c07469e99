//! To be written: transfer tests.
