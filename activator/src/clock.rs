//! To be written: clock.
