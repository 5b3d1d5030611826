//! What people would use instead of Doorbuster, behind the same front door: the same routes,
//! extractors, checks and sizes of answers, so that what differs is how an attempt is decided
//! and kept. For the comparison in `bench versus`.

mod door;
mod seller;

mod kafka;
mod postgres;
mod redis;

mod engine;
mod process;

pub use self::door::serve;
pub use self::seller::{Attempt, Outcome, Sale, Seller, Stock, Terms};

pub use self::kafka::AppendOnly;
pub use self::postgres::{Postgres, Take};
pub use self::redis::Redis;

pub use self::engine::{Engine, Persistence, versions};
pub use self::process::with_children;
