//! To be written: realise.
