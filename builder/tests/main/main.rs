//! Tests of what needs the kernel: processes that evaluate, sandboxes, and builds in them.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test arranges its own files and processes, and may fail")]

mod escape;
mod hostile;
mod realise;
mod sandbox;
