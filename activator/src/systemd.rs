//! To be written: systemd.
