//! To be written: snapshot.
