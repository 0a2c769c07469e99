//! Plain values: what attributes, resources and template contexts are made of.
