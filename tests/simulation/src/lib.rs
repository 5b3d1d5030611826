//! Whole-system simulation: the code of the real services over a simulated log, store, clock
//! and network, in one thread. One seed is one run, to the byte.
//!
//! A seed is drawn into a [`plan`]: who takes part, what people ask, what breaks and when. The
//! [`nodes`] run the services on hosts of turmoil, which crash at any await; the [`world`] is
//! what they reach through the ports; the [`shoppers`] ask over the simulated network. [`run`]
//! steps through the plan, mends everything, waits for the end, and lets the [`checker`], which
//! knows nothing of the services, hold the records against the rules.
//!
//! A new feature joins with a new [`plan::Ask`], a new [`plan::Fault`] if it can break in a new
//! way, and its rule in the checker's books.

pub mod plan;
pub mod world;

pub mod nodes;
pub mod shoppers;

pub mod checker;
pub mod run;
pub mod shorten;

pub mod mutants;
