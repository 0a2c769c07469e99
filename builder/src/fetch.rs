//! To be written: fetch.
