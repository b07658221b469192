//! SQS and S3 inside this process: real protocols over loopback, data in a folder.

mod endpoint;
mod clients;
mod journal;
mod queues;
mod restore;
pub mod sqs;
mod object_files;
mod checks;
pub mod s3;

pub use clients::{s3_client, sdk_config, sqs_client};
pub(crate) use object_files::{is_there, look};
pub use s3::EmbeddedS3;
pub use sqs::EmbeddedSqs;

/// Access key that the embedded services are used with. S3 checks the signature; SQS does not.
pub const ACCESS_KEY_ID: &str = "local";
/// Secret key that belongs to [`ACCESS_KEY_ID`]. It guards nothing: the services listen on loopback only.
pub const SECRET_ACCESS_KEY: &str = "local-secret";
/// The region in which the embedded services claim to be.
pub const REGION: &str = "us-west-2";
