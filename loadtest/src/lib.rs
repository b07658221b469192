//! What the pipeline does under load. `simulate`: the scaling of terraform/, without AWS.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod simulate;
