//! To be written: transaction.
