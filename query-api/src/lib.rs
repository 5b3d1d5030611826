//! The read side: answers queries, and follows attempts live.

pub mod http;
pub mod live;
