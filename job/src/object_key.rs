//! Object keys and how each kind of object is stored.

use crate::{ImageFormat, JobId, RenditionSpec};

/// Tag of every picture. The expiring lifecycle rule matches this tag, so a picture is kept for good by retagging it
/// `retention=permanent`; lifecycle filters cannot say 'unless tagged'.
pub const STANDARD_RETENTION_TAG: &str = "retention=standard";

/// The three kinds of object in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// `images/{id}.webp` and the renditions beside it: what the CDN serves.
    Image(ImageFormat),
    /// `records/{id}.json`: what the API reads.
    Record,
    /// `sources/{id}`: what the model returned, kept for days.
    Source,
}

impl ObjectKind {
    /// Returns the `Cache-Control` to store. An image never changes under its key.
    pub fn cache_control(self) -> &'static str {
        match self {
            Self::Image(_) => "public, max-age=31536000, immutable",
            Self::Record | Self::Source => "private, no-store",
        }
    }

    /// Returns the `Content-Type` to store.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Image(format) => format.content_type(),
            Self::Record => "application/json",
            Self::Source => "application/octet-stream",
        }
    }
}

/// Returns the key of the picture that every job ends with.
pub fn image_key(id: &JobId) -> String {
    format!("images/{id}.webp")
}

/// Returns the key of one rendition: [`image_key`] for the standard one, `images/{id}-256.avif` and the like for others.
pub fn rendition_key(id: &JobId, spec: RenditionSpec) -> String {
    if spec == RenditionSpec::STANDARD { image_key(id) } else { format!("images/{id}-{spec}") }
}

/// Returns the key of the record.
pub fn record_key(id: &JobId) -> String {
    format!("records/{id}.json")
}

/// Returns the key of the checkpointed source.
pub fn source_key(id: &JobId) -> String {
    format!("sources/{id}")
}
