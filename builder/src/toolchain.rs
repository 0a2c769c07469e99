//! To be written: toolchain.
