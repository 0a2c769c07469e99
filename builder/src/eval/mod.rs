//! To be written: eval.
