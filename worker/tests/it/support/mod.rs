//! Fakes of the three ports, and a worker on top of them.

mod memory_queue;
mod memory_store;
mod scripted_generator;
mod test_worker;

pub use memory_queue::MemoryQueue;
pub use memory_store::{Call, MemoryStore};
pub use scripted_generator::{Answer, ScriptedGenerator, picture};
pub use test_worker::{LEASE, MAX_RECEIVE_COUNT, World};
