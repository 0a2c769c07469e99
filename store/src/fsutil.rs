//! To be written: fsutil.
