//! To be written: serve.
