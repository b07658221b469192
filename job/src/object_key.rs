//! Object keys and how each kind of object is stored.

use crate::{ImageFormat, JobId, RenditionSpec};

/// Tag of every picture. The expiring lifecycle rule matches this tag, so a picture is kept for good by retagging it
/// `retention=permanent`; lifecycle filters cannot say 'unless tagged'.
pub const STANDARD_RETENTION_TAG: &str = "retention=standard";

/// What the keys of all records begin with.
pub const RECORDS: &str = "records/";

/// The kinds of object in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// `images/{id}.webp` and the renditions beside it: what the CDN serves.
    Image(ImageFormat),
    /// `records/{id}.json`: what the API reads.
    Record,
    /// `sources/{id}`: what the model returned, kept for days.
    Source,
    /// `index/{tenant}/...`: the list of a tenant's jobs, in names alone.
    Index,
    /// `control/...`: what steers the fleet, and `audit/...`: what operators did.
    Control,
}

impl ObjectKind {
    /// Returns the `Cache-Control` to store. An image never changes under its key.
    pub fn cache_control(self) -> &'static str {
        match self {
            Self::Image(_) => "public, max-age=31536000, immutable",
            Self::Record | Self::Source | Self::Index | Self::Control => "private, no-store",
        }
    }

    /// Returns the `Content-Type` to store.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Image(format) => format.content_type(),
            Self::Record | Self::Control => "application/json",
            Self::Source | Self::Index => "application/octet-stream",
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
    format!("{RECORDS}{id}.json")
}

/// Returns whose record it is; `None` for a key that is no record's.
pub fn id_of_record_key(key: &str) -> Option<JobId> {
    key.strip_prefix(RECORDS)?.strip_suffix(".json")?.parse().ok()
}

/// Returns the key of the checkpointed source.
pub fn source_key(id: &JobId) -> String {
    format!("sources/{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Terraform's lifecycle rules, the policies and the CDN's path pattern name these prefixes: docs/adr before a change.
    #[test]
    fn keys_are_where_the_rest_of_the_system_looks_for_them() {
        let text = "018f3a5e7c007cc4a1f00123456789ab-0011223344556677";
        let id: JobId = text.parse().unwrap();
        let avif = RenditionSpec::new(256, ImageFormat::Avif).unwrap();
        assert_eq!(image_key(&id), format!("images/{text}.webp"));
        assert_eq!(rendition_key(&id, RenditionSpec::STANDARD), image_key(&id));
        assert_eq!(rendition_key(&id, avif), format!("images/{text}-256.avif"));
        assert_eq!(record_key(&id), format!("records/{text}.json"));
        assert_eq!(source_key(&id), format!("sources/{text}"));
    }

    #[test]
    fn only_pictures_are_cached_and_each_kind_has_its_type() {
        let [webp, avif] = [ImageFormat::Webp, ImageFormat::Avif].map(ObjectKind::Image);
        for (kind, cache_control, content_type) in [
            (webp, "public, max-age=31536000, immutable", "image/webp"),
            (avif, "public, max-age=31536000, immutable", "image/avif"),
            (ObjectKind::Record, "private, no-store", "application/json"),
            (ObjectKind::Source, "private, no-store", "application/octet-stream"),
            (ObjectKind::Index, "private, no-store", "application/octet-stream"),
            (ObjectKind::Control, "private, no-store", "application/json"),
        ] {
            assert_eq!((kind.cache_control(), kind.content_type()), (cache_control, content_type));
        }
    }

    #[test]
    fn a_record_is_found_by_its_key_and_by_no_other() {
        let id: JobId = "018f3a5e7c007cc4a1f00123456789ab-0011223344556677".parse().unwrap();
        assert_eq!(id_of_record_key(&record_key(&id)), Some(id));
        for other in ["records/", "records/x.json", &image_key(&id), &record_key(&id).to_uppercase()] {
            assert_eq!(id_of_record_key(other), None, "{other}");
        }
    }
}
