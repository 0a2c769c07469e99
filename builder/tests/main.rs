//! Tests of what needs the kernel: sandboxes and builds in them.

mod sandbox;
