//! `Cache`: what an edge keeps, for how long, and what it drops when it is full.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::origin::{OriginError, OriginObject};

/// Lower and upper bound of the managed policy `CachingOptimized`; the lower one wins over `no-store`.
const MIN_TTL: Duration = Duration::from_secs(1);
const MAX_TTL: Duration = Duration::from_secs(31_536_000);

/// What an edge has to say about a path: the object, or the error the origin gave.
pub(crate) type Content = Result<Arc<OriginObject>, OriginError>;

/// How long things are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ttls {
    /// Of objects without `Cache-Control`.
    pub(crate) default: Duration,
    /// Of errors (Error Caching Minimum TTL).
    pub(crate) errors: Duration,
}

/// Least recently used goes first.
#[derive(Debug)]
pub(crate) struct Cache {
    ttls: Ttls,
    max_bytes: usize,
    bytes: usize,
    entries: HashMap<String, Entry>,
    by_use: BTreeMap<u64, String>,
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    content: Content,
    fetched_at: Instant,
    fresh_until: Instant,
    used: u64,
}

/// What the cache knows about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// To be served as it is.
    Fresh {
        content: Content,
        age: Duration,
    },
    /// Expired: to be served again if the origin says that nothing changed, or says nothing.
    Stale(Arc<OriginObject>),
    Absent,
}

impl Cache {
    pub(crate) fn new(ttls: Ttls, max_bytes: usize) -> Self {
        Self { ttls, max_bytes, bytes: 0, entries: HashMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }

    pub(crate) fn get(&mut self, path: &str, now: Instant) -> Lookup {
        let Some(entry) = self.entries.get_mut(path) else { return Lookup::Absent };
        self.uses += 1;
        self.by_use.remove(&entry.used);
        self.by_use.insert(self.uses, path.to_owned());
        entry.used = self.uses;
        if now < entry.fresh_until {
            let age = now.saturating_duration_since(entry.fetched_at);
            return Lookup::Fresh { content: entry.content.clone(), age };
        }
        match &entry.content {
            Ok(object) => Lookup::Stale(Arc::clone(object)),
            Err(_) => Lookup::Absent,
        }
    }

    /// Keeps what the origin said, as long as it may be kept.
    pub(crate) fn put(&mut self, path: &str, content: &Content, now: Instant) {
        self.remove(path);
        let ttl = match content {
            Ok(object) => object_ttl(object.cache_control.as_deref(), self.ttls.default),
            Err(_) => self.ttls.errors,
        };
        let bytes = content_bytes(content);
        if ttl.is_zero() || bytes > self.max_bytes {
            return;
        }
        self.uses += 1;
        self.bytes += bytes;
        self.by_use.insert(self.uses, path.to_owned());
        let entry = Entry { content: content.clone(), fetched_at: now, fresh_until: now + ttl, used: self.uses };
        self.entries.insert(path.to_owned(), entry);
        while self.bytes > self.max_bytes {
            let Some((_, oldest)) = self.by_use.first_key_value() else { break };
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.by_use.clear();
        self.bytes = 0;
    }

    /// Number of entries and bytes of their bodies.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    fn remove(&mut self, path: &str) {
        if let Some(entry) = self.entries.remove(path) {
            self.by_use.remove(&entry.used);
            self.bytes -= content_bytes(&entry.content);
        }
    }
}

fn content_bytes(content: &Content) -> usize {
    content.as_ref().map_or(0, |object| object.body.len())
}

/// `s-maxage`, else `max-age`, between the bounds of the policy; nothing at all for what must not be stored, which the
/// lower bound then makes one second.
fn object_ttl(cache_control: Option<&str>, default: Duration) -> Duration {
    let Some(cache_control) = cache_control else { return default.clamp(MIN_TTL, MAX_TTL) };
    let directives: Vec<String> = cache_control.split(',').map(|part| part.trim().to_ascii_lowercase()).collect();
    let seconds = |name: &str| {
        let value = directives.iter().find_map(|directive| directive.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.trim_matches('"').parse().ok()).map(Duration::from_secs)
    };
    let forbidden =
        directives.iter().any(|directive| matches!(directive.as_str(), "no-store" | "no-cache" | "private"));
    let asked = if forbidden { Some(Duration::ZERO) } else { seconds("s-maxage").or_else(|| seconds("max-age")) };
    asked.unwrap_or(default).clamp(MIN_TTL, MAX_TTL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(bytes: usize) -> Content {
        Ok(Arc::new(OriginObject { body: vec![0; bytes].into(), ..OriginObject::default() }))
    }

    #[test]
    fn time_to_live_follows_cache_control_within_the_bounds() {
        let ttl = |text| object_ttl(text, Duration::from_secs(86_400)).as_secs();
        assert_eq!(ttl(None), 86_400);
        assert_eq!(ttl(Some("public, max-age=60")), 60);
        assert_eq!(ttl(Some("max-age=60, S-MaxAge=90")), 90);
        assert_eq!(ttl(Some("public, max-age=99999999999")), 31_536_000);
        assert_eq!(ttl(Some("public")), 86_400);
        for forbidden in ["no-store", "private, max-age=60", "no-cache", "max-age=0"] {
            assert_eq!(ttl(Some(forbidden)), 1, "{forbidden}");
        }
    }

    #[test]
    fn the_least_recently_used_goes_first_and_giants_are_not_kept() {
        let ttls = Ttls { default: Duration::from_secs(60), errors: Duration::ZERO };
        let (mut cache, now) = (Cache::new(ttls, 100), Instant::now());
        for path in ["a", "b", "c"] {
            cache.put(path, &object(30), now);
        }
        assert!(matches!(cache.get("a", now), Lookup::Fresh { .. }));
        cache.put("d", &object(30), now);
        assert_eq!(cache.size(), (3, 90));
        assert_eq!(cache.get("b", now), Lookup::Absent);
        assert!(matches!(cache.get("a", now), Lookup::Fresh { .. }));
        cache.put("giant", &object(101), now);
        assert_eq!(cache.size(), (3, 90));
        // A second version takes the place of the first.
        cache.put("a", &object(10), now);
        assert_eq!(cache.size(), (3, 70));
        cache.clear();
        assert_eq!(cache.size(), (0, 0));
    }
}
