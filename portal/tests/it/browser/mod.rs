//! The portal in Chromium, on the whole stack: the API, a worker, the stand-ins for Bedrock and CloudFront.

mod axe;
mod chromium;
mod house;

mod flows;
mod batch;
mod trouble;

pub use chromium::Browser;
pub use house::House;
