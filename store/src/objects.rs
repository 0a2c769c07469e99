//! To be written: objects.
