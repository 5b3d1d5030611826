//! Whole-system simulation: the code of the real services over a simulated log, store, clock
//! and network, in one thread. One seed is one run, to the byte.
//!
//! A [`plan`] is drawn from a seed: which nodes there are, what is requested, what fails and
//! when. The [`nodes`] run the services on hosts of turmoil, which crash at any await. The
//! [`world`] is what they reach through the ports. The [`shoppers`] send requests over the
//! simulated network. [`run`] steps through the plan, repairs everything, and waits until all
//! work is done. Then the [`checker`], which does not use the services' code, checks the records
//! against the rules.
//!
//! A new feature needs a new [`plan::Request`], a new [`plan::Fault`] if it can fail in a new
//! way, and its rules in the checker.

pub mod plan;
pub mod world;

pub mod nodes;
pub mod shoppers;

pub mod checker;
pub mod run;
pub mod shorten;

pub mod mutants;
