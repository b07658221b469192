//! `image-api webhooks`: tells the receivers of tenants that jobs have ended, each signed, and tried again for a day.

pub mod address;
pub mod client;
mod command;
mod courier;
pub mod event;
pub mod metrics;
pub mod queue;
pub mod receivers;
pub mod schedule;
pub mod settings;
pub mod signature;

pub use command::asked;
pub use courier::{Courier, Stopped};

/// `maxReceiveCount` of the webhook queue: eight tries, and room for hand-overs that were none.
pub const MAX_RECEIVE_COUNT: u32 = 30;
