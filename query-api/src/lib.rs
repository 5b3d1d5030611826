//! The read side: answers questions and follows attempts live.
