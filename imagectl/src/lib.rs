//! What an operator sees and does: queue, jobs, dead letters, pauses, costs.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod settings;
pub mod fault;
pub mod site;
pub mod queues;
pub mod objects;
pub mod fleet;
pub mod status;
pub mod show;
pub mod letters;
pub mod redrive;
pub mod delete;
pub mod audit;
pub mod pause;
pub mod cost;
pub mod table;
