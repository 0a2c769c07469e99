//! To be written: generation.
