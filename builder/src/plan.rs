//! To be written: plan.
