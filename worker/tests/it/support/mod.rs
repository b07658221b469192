//! Fakes of the three ports, a worker on top of them, and the real binary on loopback services.

mod jobs;
mod loopback_proxy;
mod memory_queue;
mod memory_store;
mod scripted_generator;
mod site;
mod test_worker;
mod worker_process;

pub use jobs::{job, job_of};
pub use loopback_proxy::{Idle, LoopbackProxy};
pub use memory_queue::MemoryQueue;
pub use memory_store::{Call, MemoryStore};
pub use scripted_generator::{Answer, ScriptedGenerator, picture};
pub use site::{Site, when};
pub use test_worker::{LEASE, MAX_RECEIVE_COUNT, World};
pub use worker_process::{BINARY, WorkerProcess};
