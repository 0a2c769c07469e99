//! To be written: sandbox.
