//! To be written: object.
