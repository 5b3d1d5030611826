//! The read side: answers questions, and follows attempts live.

pub mod http;
pub mod live;
