//! To be written: deployment.
