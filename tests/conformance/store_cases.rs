//! What every read store must do.
