//! An empty database for one test.

use tempfile::TempDir;

use super::postgres;

/// SQLite in a folder of its own, or a new database of the PostgreSQL that all tests share.
pub struct Db {
    url: String,
    _dir: Option<TempDir>,
}

impl Db {
    pub fn sqlite() -> Self {
        let dir = TempDir::new().unwrap();
        let url = format!("sqlite://{}", dir.path().join("portal.db").display());
        Self { url, _dir: Some(dir) }
    }

    /// Returns None, and says so, where there is no PostgreSQL.
    pub async fn postgres() -> Option<Self> {
        Some(Self { url: postgres::new_database().await?, _dir: None })
    }

    pub fn url(&self) -> &str {
        &self.url
    }
}
