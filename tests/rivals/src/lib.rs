//! The alternatives to Doorbuster, behind the same front end: the same routes, extractors, checks
//! and sizes of answers, so that only deciding and storing an attempt differ. For the comparison in `bench versus`.

mod front_end;
mod seller;

mod kafka;
mod postgres;
mod redis;

mod engine;
mod process;

pub use self::front_end::serve;
pub use self::seller::{Attempt, Outcome, Sale, Seller, Stock, Terms};

pub use self::kafka::AppendOnly;
pub use self::postgres::{Postgres, Take};
pub use self::redis::Redis;

pub use self::engine::{Engine, Persistence, versions};
pub use self::process::with_children;
