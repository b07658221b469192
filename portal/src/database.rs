//! `Database`: SQLite in a file, or PostgreSQL, by the scheme of `DATABASE_URL`; the same SQL for both.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::AnyPool;
use sqlx::SqlSafeStr;
use sqlx::any::AnyPoolOptions;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use thiserror::Error;

/// Connections: pages are short, and SQLite writes one at a time in any case.
const CONNECTIONS: u32 = 8;
/// A page that cannot have a connection within this time says so.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// The database cannot be used.
#[derive(Debug, Error)]
pub enum DatabaseError {
    #[error("DATABASE_URL: expected sqlite://FILE or postgres://USER:PASSWORD@HOST/NAME")]
    Scheme,
    #[error("the database of DATABASE_URL cannot be opened: {0}")]
    Open(#[source] sqlx::Error),
    #[error("the tables cannot be made: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

/// The open database, with all tables. A clone is the same one.
#[derive(Debug, Clone)]
pub struct Database {
    pub(crate) pool: AnyPool,
}

impl Database {
    /// Opens the database, makes the file if there is none, and brings the tables up to date.
    ///
    /// # Errors
    /// When the URL is of no kind that the portal knows, nothing answers there, or a table cannot be made.
    pub async fn open(url: &str) -> Result<Self, DatabaseError> {
        sqlx::any::install_default_drivers();
        let is_sqlite = url.starts_with("sqlite:");
        if !is_sqlite && !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(DatabaseError::Scheme);
        }
        if is_sqlite {
            keep_to_ourselves(url).map_err(|error| DatabaseError::Open(error.into()))?;
        }
        let url = if is_sqlite && !url.contains('?') { Cow::Owned(format!("{url}?mode=rwc")) } else { url.into() };
        let options = AnyPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(ACQUIRE_TIMEOUT);
        let pool = options.connect(&url).await.map_err(DatabaseError::Open)?;
        if is_sqlite {
            // Readers then do not wait for a writer. It is a property of the file, so once is enough.
            let wal = sqlx::query("PRAGMA journal_mode = WAL").fetch_optional(&pool).await;
            wal.map_err(DatabaseError::Open)?;
        }
        migrations().run(&pool).await?;
        Ok(Self { pool })
    }

    /// Closes every connection, so that SQLite puts its journal away.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Tells whether it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT 1").fetch_one(&self.pool).await.map(|_| ())
    }
}

/// Makes a new database file readable by nobody else: it has the hashes of passwords, and answers.
fn keep_to_ourselves(url: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = url.trim_start_matches("sqlite:").trim_start_matches("//");
    if path.is_empty() || path.contains(['?', ':']) {
        return Ok(());
    }
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(|_| ())
}

/// The migrations, in the binary. By hand and not by `sqlx::migrate!`, whose macro crate compiles SQLite again.
fn migrations() -> Migrator {
    let first = include_str!("../migrations/0001_portal.sql").into_sql_str();
    Migrator::with_migrations(vec![Migration::new(1, "portal".into(), MigrationType::Simple, first, false)])
}

/// Returns the time as it is kept: milliseconds since 1970.
pub fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Escapes what `LIKE` reads as a wildcard, for `ESCAPE '\'`.
pub fn like(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_searched_for_and_not_obeyed() {
        assert_eq!(like("50 %_\\"), "%50 \\%\\_\\\\%");
        assert_eq!(like(""), "%%");
    }

    #[tokio::test]
    async fn another_scheme_is_refused_and_a_second_start_changes_nothing() {
        let error = Database::open("mysql://localhost/portal").await.unwrap_err();
        assert!(matches!(error, DatabaseError::Scheme), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("portal.db").display());
        Database::open(&url).await.unwrap().close().await;
        let mode = std::os::unix::fs::MetadataExt::mode(&dir.path().join("portal.db").metadata().unwrap());
        assert_eq!(mode & 0o077, 0, "{mode:o}");
        Database::open(&url).await.unwrap().ping().await.unwrap();
    }
}
