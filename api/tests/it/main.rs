//! Requests through the real router, with queue and store in memory.

mod support;

mod submit;
mod requests;
mod batch;
mod status;
mod wait;
mod cancel;
mod faults;
mod limits;
mod logs;
mod openapi;
mod serving;
