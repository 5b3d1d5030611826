//! The event log as segmented files with group commit.
