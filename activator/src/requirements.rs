//! To be written: requirements.
