//! Builds the read models from the decisions.
