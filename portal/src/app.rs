//! `Application`: the pages and the courier, from the settings to the end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash;
use axum::Router;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::ApiClient;
use crate::courier::Courier;
use crate::database::{Database, DatabaseError};
use crate::limits::SignInLimits;
use crate::secret;
use crate::settings::{FirstSettings, MIN_PASSWORD_CHARS, ServeSettings};
use crate::web::{Portal, router};

/// What requests in flight get to finish after the signal: a page takes milliseconds, a sign-in some more.
const GRACE: Duration = Duration::from_secs(10);
/// How often what nobody can use any more is removed.
const TIDY_EVERY: Duration = Duration::from_secs(600);
/// How long a form is known to have been used: nobody clicks the same button again after a week.
const FORMS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The portal did not start, or does not go on.
#[derive(Debug, Error)]
pub enum AppError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("the first teacher cannot be added: {0}")]
    FirstTeacher(#[source] sqlx::Error),
    #[error("a password cannot be hashed: {0}")]
    Hash(password_hash::Error),
    #[error("the client of the picture API cannot be made: {0}")]
    Client(#[from] reqwest::Error),
    #[error("LISTEN_ADDR {addr} cannot be used ({source}): free it, or choose another one")]
    Listen { addr: SocketAddr, source: io::Error },
    #[error("the port cannot be served: {0}")]
    Serve(#[from] io::Error),
}

/// A portal that listens and does not answer yet.
#[derive(Debug)]
pub struct Application {
    listener: TcpListener,
    router: Router,
    courier: Courier,
    portal: Arc<Portal>,
}

impl Application {
    /// Opens the database and the port.
    ///
    /// # Errors
    /// Names what is in the way.
    pub async fn build(settings: &ServeSettings) -> Result<Self, AppError> {
        let database = Database::open(settings.database.database_url.reveal()).await?;
        add_first(&database, &settings.first).await?;
        let api = ApiClient::new(settings.pictures.api_url.url().clone(), settings.pictures.api_key.clone())?;
        let (courier, desk) = Courier::new(database.clone(), api);
        let portal = Arc::new(Portal {
            database,
            desk,
            limits: SignInLimits::default(),
            https: settings.is_https(),
            trusted_proxies: settings.trusted_proxies,
            session: settings.session(),
            cdn: settings.pictures.cloudfront_domain.to_string(),
        });
        let addr = settings.listen_addr;
        let listener = TcpListener::bind(addr).await.map_err(|source| AppError::Listen { addr, source })?;
        Ok(Self { listener, router: router(Arc::clone(&portal)), courier, portal })
    }

    /// Returns the address that is listened on.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`; then requests in flight may finish.
    ///
    /// # Errors
    /// When the port cannot be served.
    pub async fn run(self, stop: CancellationToken) -> Result<(), AppError> {
        let Self { listener, router, courier, portal } = self;
        let mut tasks = JoinSet::new();
        tasks.spawn(courier.run(stop.clone()));
        tasks.spawn(tidy(Arc::clone(&portal), stop.clone()));
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let serving = axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned());
        let served = tokio::select! {
            served = serving.into_future() => served,
            () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => {
                tracing::warn!(grace_seconds = GRACE.as_secs(), "requests were still in flight");
                Ok(())
            }
        };
        stop.cancel();
        while tasks.join_next().await.is_some() {}
        portal.database.close().await;
        Ok(served?)
    }
}

/// Adds or changes a teacher.
///
/// # Errors
/// When the password cannot be hashed, or the database does not answer.
pub async fn put_teacher(
    database: &Database,
    email: &str,
    name: Option<&str>,
    password: String,
    code: &str,
) -> Result<(), AppError> {
    let hash = secret::hash_password(password).await.map_err(AppError::Hash)?;
    database.put_teacher(email, name, &hash, code).await.map_err(AppError::FirstTeacher)
}

/// Tells whether a password is long enough.
pub fn is_long_enough(password: &str) -> bool {
    password.chars().count() >= MIN_PASSWORD_CHARS
}

async fn add_first(database: &Database, first: &FirstSettings) -> Result<(), AppError> {
    let (Some(email), Some(password)) = (&first.first_teacher_email, &first.first_teacher_password) else {
        return Ok(());
    };
    if database.has_teacher(email).await.map_err(AppError::FirstTeacher)? {
        return Ok(());
    }
    let code = first.first_class_code.clone().unwrap_or_else(secret::class_code);
    put_teacher(database, email, None, password.reveal().to_owned(), &code).await
}

async fn tidy(portal: Arc<Portal>, stop: CancellationToken) {
    loop {
        if let Err(error) = portal.database.tidy(FORMS_KEPT).await {
            tracing::warn!(%error, "expired sessions are not removed");
        }
        portal.limits.tidy();
        tokio::select! {
            () = tokio::time::sleep(TIDY_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}
