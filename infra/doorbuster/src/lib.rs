//! The one binary people start, as a library for the tests.
