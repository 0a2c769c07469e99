//! Tests of file mutation.
