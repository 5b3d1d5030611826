//! The one vocabulary of the product: what is asked ([`command`]), what is answered
//! ([`decision`]), what a decider remembers ([`snapshot`]), where each record goes
//! ([`topics`]), as which bytes ([`codec`]), which decisions count ([`fence`]) and for whose
//! trace ([`trace`]).
//!
//! The domain uses these types as they are; the Avro schemas beside them in `avro/` are the
//! contract with everyone else, and `golden/` keeps the bytes of every released version.

pub mod ids;

pub mod command;
pub mod decision;
pub mod snapshot;

pub mod codec;
pub mod fence;
pub mod placement;
pub mod topics;
pub mod trace;
mod wire;
