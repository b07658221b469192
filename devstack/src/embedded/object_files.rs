//! One file per object, replaced by rename: the body, then its attributes, so that one rename commits both.

use std::collections::BTreeMap;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::fs;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use uuid::Uuid;

/// The file ends with the length of the attributes as this many hexadecimal digits.
const LENGTH_DIGITS: u64 = 8;
/// File names are at most 255 bytes on every file system we know.
const MAX_NAME_BYTES: usize = 255;
/// Names that start so are files being written; a kill may leave them.
const TEMPORARY_PREFIX: &str = ".writing-";

/// What S3 keeps beside an object's bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Attributes {
    /// MD5 of the body in hexadecimal, as S3 makes it.
    pub(super) etag: String,
    pub(super) size: u64,
    /// Milliseconds since the epoch.
    pub(super) last_modified: u64,
    pub(super) content_type: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) cache_control: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) tags: Vec<(String, String)>,
    /// Base64, by the lower-case name of the algorithm.
    pub(super) checksums: BTreeMap<String, String>,
}

/// Buckets and their objects under a root folder: `{root}/{bucket}/{key, percent-encoded}`.
#[derive(Debug)]
pub(super) struct ObjectFiles {
    root: PathBuf,
    /// Guards the creation of buckets.
    buckets: Mutex<()>,
}

/// Returned when a key does not fit into a file name.
#[derive(Debug, thiserror::Error)]
#[error("the key is too long for this store: {MAX_NAME_BYTES} bytes after percent-encoding")]
pub(super) struct KeyTooLong;

impl ObjectFiles {
    /// Opens the folder, and removes what a killed process was writing.
    pub(super) fn open(root: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&root)?;
        for bucket in std::fs::read_dir(&root)? {
            let bucket = bucket?;
            if !bucket.file_type()?.is_dir() {
                continue;
            }
            for file in std::fs::read_dir(bucket.path())? {
                let file = file?;
                if file.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) {
                    std::fs::remove_file(file.path())?;
                }
            }
        }
        Ok(Self { root, buckets: Mutex::new(()) })
    }

    /// Returns whether the bucket is new.
    pub(super) fn create_bucket(&self, bucket: &str) -> io::Result<bool> {
        let _one_at_a_time = self.buckets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let path = self.root.join(bucket);
        let new = !path.is_dir();
        std::fs::create_dir_all(path)?;
        Ok(new)
    }

    pub(super) fn has_bucket(&self, bucket: &str) -> bool {
        self.root.join(bucket).is_dir()
    }

    pub(super) fn buckets(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Returns the place of an object.
    pub(super) fn path(&self, bucket: &str, key: &str) -> Result<PathBuf, KeyTooLong> {
        let name = file_name(key);
        if name.len() > MAX_NAME_BYTES {
            return Err(KeyTooLong);
        }
        Ok(self.root.join(bucket).join(name))
    }

    /// Returns the keys of a bucket, sorted as S3 sorts them: by their bytes.
    pub(super) async fn keys(&self, bucket: &str) -> io::Result<Vec<String>> {
        let mut keys = Vec::new();
        let mut entries = fs::read_dir(self.root.join(bucket)).await?;
        while let Some(entry) = entries.next_entry().await? {
            if let Ok(name) = entry.file_name().into_string()
                && let Some(key) = key_of(&name)
            {
                keys.push(key);
            }
        }
        keys.sort();
        Ok(keys)
    }
}

/// Replaces the object in one step: whoever reads sees the old one or the new one, also after a kill.
pub(super) async fn write(path: &Path, attributes: &Attributes, body: &[u8]) -> io::Result<()> {
    let temporary = path.with_file_name(format!("{TEMPORARY_PREFIX}{}", Uuid::new_v4()));
    let json = serde_json::to_vec(attributes)?;
    let written = async {
        let mut file = fs::File::create(&temporary).await?;
        file.write_all(body).await?;
        file.write_all(&json).await?;
        file.write_all(format!("{:08x}", json.len()).as_bytes()).await?;
        file.flush().await?;
        fs::rename(&temporary, path).await
    };
    let result = written.await;
    if result.is_err()
        && let Err(error) = fs::remove_file(&temporary).await
    {
        tracing::debug!(%error, "temporary file not removed");
    }
    result
}

/// Returns the object, None when there is none.
pub(super) async fn read(path: &Path) -> io::Result<Option<(Attributes, Bytes)>> {
    let Some((mut file, attributes)) = open(path).await? else { return Ok(None) };
    file.rewind().await?;
    let size = usize::try_from(attributes.size).map_err(io::Error::other)?;
    let mut body = vec![0; size];
    file.read_exact(&mut body).await?;
    Ok(Some((attributes, body.into())))
}

/// Returns when the object in a bucket under `root` was written (milliseconds since the epoch) and what it is, None when
/// there is none: also while nobody serves the folder.
pub(crate) async fn look(root: &Path, bucket: &str, key: &str) -> io::Result<Option<(u64, Bytes)>> {
    let found = read(&root.join(bucket).join(file_name(key))).await?;
    Ok(found.map(|(attributes, body)| (attributes.last_modified, body)))
}

/// Returns whether there is an object of this key in a bucket under `root`.
pub(crate) fn is_there(root: &Path, bucket: &str, key: &str) -> bool {
    root.join(bucket).join(file_name(key)).is_file()
}

/// Returns the object's attributes, None when there is no object.
pub(super) async fn read_attributes(path: &Path) -> io::Result<Option<Attributes>> {
    Ok(open(path).await?.map(|(_, attributes)| attributes))
}

/// Removes the object; that there is none is not an error.
pub(super) async fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

async fn open(path: &Path) -> io::Result<Option<(fs::File, Attributes)>> {
    let mut file = match fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let broken = |reason: String| {
        let message =
            format!("{} is not an object file ({reason}): remove it, or run `cargo dev reset`", path.display());
        io::Error::new(io::ErrorKind::InvalidData, message)
    };
    let length = file.metadata().await?.len();
    let digits_at = length.checked_sub(LENGTH_DIGITS).ok_or_else(|| broken("too short".to_owned()))?;
    file.seek(SeekFrom::Start(digits_at)).await?;
    let mut digits = String::new();
    file.read_to_string(&mut digits).await.map_err(|error| broken(error.to_string()))?;
    let json_length = u64::from_str_radix(&digits, 16).map_err(|error| broken(error.to_string()))?;
    let json_at = digits_at.checked_sub(json_length).ok_or_else(|| broken("too short".to_owned()))?;
    file.seek(SeekFrom::Start(json_at)).await?;
    let mut json = vec![0; usize::try_from(json_length).map_err(io::Error::other)?];
    file.read_exact(&mut json).await?;
    let attributes: Attributes = serde_json::from_slice(&json).map_err(|error| broken(error.to_string()))?;
    if attributes.size != json_at {
        return Err(broken("its size is not the one written down".to_owned()));
    }
    Ok(Some((file, attributes)))
}

/// Percent-encodes everything but letters, digits, `-`, `_` and a `.` that is not the first character.
fn file_name(key: &str) -> String {
    use std::fmt::Write as _;
    let mut name = String::with_capacity(key.len());
    for (index, byte) in key.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            b'.' if index > 0 => name.push('.'),
            other => write!(name, "%{other:02X}").expect("writing to a string cannot fail"),
        }
    }
    name
}

/// The reverse of [`file_name`]; None for a file that is not an object.
fn key_of(name: &str) -> Option<String> {
    if name.starts_with('.') {
        return None;
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_file_name_of_its_own() {
        for key in ["images/a.webp", "images", ".hidden", "..", "a%2Fb", "a/b", "ünïcode key/", "a:b\\c"] {
            let name = file_name(key);
            assert!(!name.contains('/') && !name.starts_with('.'), "{name}");
            assert_eq!(key_of(&name).as_deref(), Some(key));
        }
        assert_eq!(key_of(".writing-1"), None);
    }

    #[tokio::test]
    async fn an_object_and_its_attributes_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let files = ObjectFiles::open(dir.path().to_owned()).unwrap();
        assert!(files.create_bucket("b").unwrap());
        assert!(!files.create_bucket("b").unwrap());
        let path = files.path("b", "images/a.webp").unwrap();
        assert!(read(&path).await.unwrap().is_none());
        let attributes = Attributes { size: 3, tags: vec![("k".into(), "v".into())], ..Attributes::default() };
        write(&path, &attributes, b"abc").await.unwrap();
        assert_eq!(read(&path).await.unwrap(), Some((attributes.clone(), Bytes::from_static(b"abc"))));
        assert_eq!(files.keys("b").await.unwrap(), ["images/a.webp"]);
        assert!(files.path("b", &"ü".repeat(50)).is_err());
    }

    #[tokio::test]
    async fn a_damaged_file_is_named_and_a_half_written_one_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let files = ObjectFiles::open(dir.path().to_owned()).unwrap();
        files.create_bucket("b").unwrap();
        let path = files.path("b", "k").unwrap();
        for damaged in [&b"short"[..], b"no length at all", b"{]00000002", b"abc{\"size\":4}0000000a"] {
            std::fs::write(&path, damaged).unwrap();
            let error = read(&path).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
        let half = dir.path().join("b").join(format!("{TEMPORARY_PREFIX}1"));
        std::fs::write(&half, b"half").unwrap();
        ObjectFiles::open(dir.path().to_owned()).unwrap();
        assert!(!half.exists());
    }
}
