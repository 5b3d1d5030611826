//! One answer for all who ask at the same time.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// The last answer to a question that many ask at the same time. An asker gets an answer that was
/// begun after it asked, so the answer is never older than the question; at most one is being made at
/// any time, however many ask.
pub struct SharedAnswer<T> {
    begun: AtomicU64,
    /// The last answer, and which it is of those begun.
    last: Mutex<(u64, Option<T>)>,
}

impl<T> Default for SharedAnswer<T> {
    fn default() -> Self {
        Self {
            begun: AtomicU64::new(0),
            last: Mutex::new((0, None)),
        }
    }
}

impl<T: Clone> SharedAnswer<T> {
    /// An answer that was begun after this call: another asker's, or that of `make`.
    pub async fn get<Making: Future<Output = T>>(&self, make: impl FnOnce() -> Making) -> T {
        let before = self.begun.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        if let (begun, Some(answer)) = &*last
            && *begun > before
        {
            return answer.clone();
        }
        let begun = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let answer = make().await;
        *last = (begun, Some(answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn an_answer_is_shared_but_never_older_than_the_question() {
        let (shared, made) = (SharedAnswer::default(), Cell::new(0));
        let ask = || {
            shared.get(|| async {
                let answer = made.get() + 1;
                made.set(answer);
                yield_now().await;
                answer
            })
        };
        assert_eq!(ask().await, 1);
        assert_eq!(
            ask().await,
            2,
            "the first answer was begun before this call"
        );
        // All ask while the third is being made: they share the fourth.
        let (third, a, b, c) = tokio::join!(ask(), ask(), ask(), ask());
        assert_eq!(third, 3);
        assert_eq!([a, b, c], [4; 3]);
    }
}
