//! To be written: settle.
