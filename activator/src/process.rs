//! To be written: process.
