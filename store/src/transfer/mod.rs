//! To be written: transfer.
