//! The example client: create, show and complete assignments with generated pictures.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod settings;
pub mod app;
pub mod secret;
pub mod style;
pub mod database;
pub mod accounts;
pub mod sessions;
pub mod assignments;
pub mod pictures;
pub mod answers;
pub mod client;
pub mod pauses;
pub mod courier;
pub mod limits;
pub mod page;
pub mod web;
