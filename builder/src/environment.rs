//! To be written: environment.
