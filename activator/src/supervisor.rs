//! To be written: supervisor.
