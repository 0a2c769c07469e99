//! Tests of what needs the kernel: sandboxes and builds in them.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test arranges its own files and processes, and may fail")]

mod realise;
mod sandbox;
