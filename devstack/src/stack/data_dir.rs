//! `DataDir`: the folder with all data of a stack, held by one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// Less free space than this is refused: a queue or a store that cannot write is worse than no start.
const MIN_FREE_BYTES: i128 = 1024 * 1024 * 1024;
/// Folders that `cargo dev reset` keeps: they take minutes to make again, and hold no data.
const KEPT_BY_RESET: [&str; 2] = ["venvs", "tools"];
/// Name of the lock file.
const LOCK: &str = "lock";

/// The folder cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    #[error("{path} is in use by another `cargo dev up`: stop that one, or choose another folder with --dir")]
    InUse { path: PathBuf },
    #[error("{path} cannot be used ({source}): make it writable, or choose another folder with --dir")]
    Unusable { path: PathBuf, source: io::Error },
    #[error(
        "{path} has {free_mib} MiB of free space, at least 1024 are needed: free some, or choose another folder with --dir"
    )]
    Full { path: PathBuf, free_mib: i128 },
    #[error(
        "{path} is no folder of `cargo dev` (it has no file '{LOCK}'): nothing was removed; name the right one with --dir"
    )]
    Foreign { path: PathBuf },
    #[error("{path} cannot be read ({source}): run `cargo dev reset`, or restore it")]
    Secrets { path: PathBuf, source: io::Error },
}

/// What protects ids and the API on this machine. Made once, so that ids stay valid over restarts.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Secrets {
    /// For `JOB_ID_KEYS`.
    pub job_id_key: String,
    /// Bearer key of the tenant `dev`.
    pub api_key: String,
    /// Password of the portal's first teacher. Absent in files from before there was a portal.
    #[serde(default)]
    pub portal_password: String,
    /// Code of the portal's first class.
    #[serde(default)]
    pub class_code: String,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

/// Where the running stack is reached, for `cargo dev submit` and other commands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoints {
    pub api_url: String,
    pub cdn_url: String,
    pub sqs_url: String,
    pub s3_url: String,
    pub bedrock_url: String,
    pub queue_url: String,
    /// Of the second lane, if there is one.
    #[serde(default)]
    pub batch_queue_url: Option<String>,
    pub dead_letter_url: String,
    pub bucket: String,
    /// Origins of the admin ports: the API's, then the workers'.
    pub admin_urls: Vec<String>,
    /// Origin of the portal, if there is one.
    #[serde(default)]
    pub portal_url: Option<String>,
}

/// The folder, locked. The lock goes with the value, or with the process.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the folder if need be, and locks it.
    ///
    /// # Errors
    /// When another process holds it, it is not writable, or the disk is nearly full.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let unusable = |source| DataDirError::Unusable { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(unusable)?;
        let path = path.canonicalize().map_err(unusable)?;
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).open(path.join(LOCK)).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse { path }),
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        let space = nix::sys::statvfs::statvfs(&path).map_err(|error| unusable(error.into()))?;
        // Wider than either type on every system.
        let free = i128::from(space.blocks_available()) * i128::from(space.fragment_size());
        if free < MIN_FREE_BYTES {
            return Err(DataDirError::Full { path, free_mib: free / 1024 / 1024 });
        }
        Ok(Self { path, _lock: lock })
    }

    /// Returns the folder's absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the secrets; makes them at the first call, readable by their owner alone.
    ///
    /// # Errors
    /// When the file cannot be read, parsed or written.
    pub fn secrets(&self) -> Result<Secrets, DataDirError> {
        let random = || format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let mut secrets = match read_secrets(&self.path)? {
            Some(secrets) if !secrets.portal_password.is_empty() => return Ok(secrets),
            Some(secrets) => secrets,
            None => Secrets { job_id_key: random(), api_key: random(), ..Secrets::default() },
        };
        // They are typed: 80 random bits, and 40 for what opens one class on this machine.
        secrets.portal_password = random().chars().take(20).collect();
        secrets.class_code = random().chars().take(10).collect::<String>().to_uppercase();
        let write = || {
            let temporary = self.path.join("secrets.new");
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(&serde_json::to_vec_pretty(&secrets)?)?;
            std::fs::rename(&temporary, secrets_path(&self.path))
        };
        write().map_err(|source| DataDirError::Unusable { path: self.path.clone(), source })?;
        Ok(secrets)
    }

    /// Writes down where the stack is reached.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save_endpoints(&self, endpoints: &Endpoints) -> io::Result<()> {
        std::fs::write(endpoints_path(&self.path), serde_json::to_vec_pretty(endpoints)?)
    }

    /// Removes what [`DataDir::save_endpoints`] wrote.
    pub fn remove_endpoints(&self) {
        if let Err(error) = std::fs::remove_file(endpoints_path(&self.path)) {
            tracing::debug!(%error, "endpoints file not removed");
        }
    }

    /// Opens a folder to reset it.
    ///
    /// # Errors
    /// As [`DataDir::open`]; also when no stack ever used the folder, for then what is in it is not ours to remove.
    pub fn open_to_reset(path: &Path) -> Result<Self, DataDirError> {
        if path.join(LOCK).is_file() { Self::open(path) } else { Err(DataDirError::Foreign { path: path.to_owned() }) }
    }

    /// Removes all data, and the tools as well with `all`.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn reset(self, all: bool) -> Result<(), DataDirError> {
        let unusable = |source| DataDirError::Unusable { path: self.path.clone(), source };
        for entry in std::fs::read_dir(&self.path).map_err(unusable)? {
            let entry = entry.map_err(unusable)?;
            let name = entry.file_name();
            // The lock stays: whoever opened it in the meantime must not hold another file than the next one.
            if name == LOCK || (KEPT_BY_RESET.iter().any(|kept| name == *kept) && !all) {
                continue;
            }
            let is_dir = entry.file_type().map_err(unusable)?.is_dir();
            let removed =
                if is_dir { std::fs::remove_dir_all(entry.path()) } else { std::fs::remove_file(entry.path()) };
            removed.map_err(unusable)?;
        }
        Ok(())
    }
}

/// Returns the secrets of a folder that may be in use; None when there are none yet.
///
/// # Errors
/// When the file cannot be read or parsed.
pub fn read_secrets(dir: &Path) -> Result<Option<Secrets>, DataDirError> {
    let path = secrets_path(dir);
    let parsed = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => Err(error),
    };
    parsed.map(Some).map_err(|source| DataDirError::Secrets { path, source })
}

/// Returns where the stack that uses this folder is reached; None when none is running.
pub fn read_endpoints(dir: &Path) -> Option<Endpoints> {
    serde_json::from_slice(&std::fs::read(endpoints_path(dir)).ok()?).ok()
}

fn secrets_path(dir: &Path) -> PathBuf {
    dir.join("secrets.json")
}

fn endpoints_path(dir: &Path) -> PathBuf {
    dir.join("endpoints.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_has_one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let second = DataDir::open(dir.path()).unwrap_err();
        assert!(second.to_string().contains("another `cargo dev up`"), "{second}");
        drop(first);
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn secrets_are_made_once_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let made = data.secrets().unwrap();
        assert!(made.api_key.len() >= 32 && made.api_key != made.job_id_key);
        let again = data.secrets().unwrap();
        assert_eq!((made.api_key, made.job_id_key), (again.api_key, again.job_id_key));
        std::fs::write(secrets_path(dir.path()), r#"{"job_id_key":"old id key","api_key":"old key"}"#).unwrap();
        let older = data.secrets().unwrap();
        assert_eq!(older.api_key, "old key", "what was made before there was a portal is kept");
        assert_eq!((older.portal_password.len(), older.class_code.len()), (20, 10));
        assert_eq!(data.secrets().unwrap().portal_password, older.portal_password);
        let mode = std::fs::metadata(secrets_path(dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(secrets_path(dir.path()), "not json").unwrap();
        assert!(data.secrets().err().unwrap().to_string().contains("cargo dev reset"));
    }

    #[test]
    fn a_file_in_the_way_is_a_clear_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        std::fs::write(&path, "").unwrap();
        let error = DataDir::open(&path).unwrap_err().to_string();
        assert!(error.contains("taken") && error.contains("--dir"), "{error}");
    }

    #[test]
    fn a_folder_that_is_not_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
        let error = DataDir::open_to_reset(dir.path()).unwrap_err();
        assert!(error.to_string().contains("nothing was removed"), "{error}");
        drop(DataDir::open(dir.path()).unwrap());
        DataDir::open_to_reset(dir.path()).unwrap();
    }

    #[test]
    fn reset_keeps_the_tools_unless_asked() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["venvs", "sqs", "s3"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        DataDir::open(dir.path()).unwrap().reset(false).unwrap();
        assert!(dir.path().join("venvs").exists() && !dir.path().join("sqs").exists());
        DataDir::open(dir.path()).unwrap().reset(true).unwrap();
        assert!(!dir.path().join("venvs").exists());
    }
}
