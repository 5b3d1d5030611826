//! The one vocabulary of the product: the commands ([`command`]), the decisions on them
//! ([`decision`]) and the checkpoints of the deciders ([`snapshot`]); the topics ([`topics`]) and
//! partitions ([`placement`]) they go to, their bytes ([`codec`]), the rule which decisions count
//! ([`fence`]), and the traces they belong to ([`trace`]).
//!
//! The domain uses these types as they are; the Avro schemas beside them in `avro/` are the
//! contract with everyone else, and `golden/` keeps the bytes of every released version.

pub mod ids;

pub mod currency;

pub mod command;
pub mod decision;
pub mod snapshot;

pub mod codec;
pub mod fence;
pub mod placement;
pub mod topics;
pub mod trace;
mod wire;
