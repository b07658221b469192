//! The contract between API and worker: ids, spec, message, record, object keys. No I/O.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod id;
mod key_ring;
mod tenant;
mod rendition;
mod spec;
mod trace;
mod message;
mod notice;
mod place;
mod status;
mod failure;
mod record;
mod object_key;
mod index;
mod pause;

pub use failure::{Failure, FailureCode};
pub use id::{InvalidJobId, JobId};
pub use index::{INDEX, IndexEntry, InvalidIndexEntry, index_prefix};
pub use key_ring::{IdKeys, InvalidIdKeys};
pub use message::{DecodeError, Job, WIRE_VERSION};
pub use notice::{InvalidNotice, NOTICE_VERSION, Notice};
pub use object_key::{
    ObjectKind, RECORDS, STANDARD_RETENTION_TAG, id_of_record_key, image_key, record_key, rendition_key, source_key,
};
pub use pause::{InvalidReason, MAX_REASON_CHARS, PAUSES_VERSION, Part, Pause, Pauses, pauses_key};
pub use place::Place;
pub use record::{Claim, ImageInfo, RECORD_VERSION, Record, RenditionInfo, SourceInfo, Timings};
pub use rendition::{ImageFormat, InvalidRendition, RENDITION_SIDES, RenditionSpec, STANDARD_SIDE};
pub use spec::{InvalidJobSpec, JobSpec, MAX_ALT_TEXT_CHARS, MAX_PROMPT_CHARS};
pub use status::Status;
pub use tenant::{InvalidTenantId, TenantId};
pub use trace::{CorrelationId, InvalidCorrelationId, TraceContext, Traceparent};
