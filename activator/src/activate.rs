//! To be written: activate.
