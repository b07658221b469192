//! What the tests stand on: databases, an API that does as it is told, and a client that fills in forms.

mod database;
mod postgres;
mod scripted_api;
mod user;
mod missing;

pub use database::Db;
pub use missing::missing;
pub use scripted_api::ScriptedApi;
pub use user::{Page, User};

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Parser;
use portal::app::{AppError, Application};
use portal::settings::{Cli, Command, ServeSettings};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub const EMAIL: &str = "teacher@example.com";
pub const PASSWORD: &str = "correct horse battery";
pub const CODE: &str = "ABCD-2345";

/// What takes longer than this on a busy machine will not happen at all.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Defines each test twice: on SQLite and on a real PostgreSQL.
macro_rules! on_both_databases {
    ($($name:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test] async fn $name() { super::$name(crate::support::Db::sqlite()).await; })*
        }
        mod on_postgres {
            $(#[tokio::test] async fn $name() {
                if let Some(db) = crate::support::Db::postgres().await {
                    super::$name(db).await;
                }
            })*
        }
    };
}
pub(crate) use on_both_databases;

/// A portal in this process.
pub struct TestPortal {
    pub address: SocketAddr,
    stop: CancellationToken,
    running: JoinSet<Result<(), AppError>>,
}

impl TestPortal {
    pub async fn start(db: &Db, api: &str) -> Self {
        Self::with(db, api, &[]).await
    }

    pub async fn with(db: &Db, api: &str, more: &[&str]) -> Self {
        let application = Application::build(&settings(db, api, more)).await.unwrap();
        let address = application.local_addr().unwrap();
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        running.spawn(application.run(stop.clone()));
        Self { address, stop, running }
    }

    pub fn user(&self) -> User {
        User::new(self.address)
    }

    /// Returns a signed-in teacher.
    pub async fn teacher(&self) -> User {
        let mut user = self.user();
        let page = user.get("/sign-in").await;
        let page = user.submit(&page, "/sign-in/teacher", &[("email", EMAIL), ("password", PASSWORD)]).await;
        assert_eq!(page.path, "/assignments", "{}", page.text);
        user
    }

    /// Returns a signed-in student.
    pub async fn student(&self, name: &str) -> User {
        let mut user = self.user();
        let page = user.get("/sign-in").await;
        let fields = [("code", CODE), ("name", name), ("pin", "4711")];
        let page = user.submit(&page, "/sign-in/student", &fields).await;
        assert_eq!(page.path, "/assignments", "{}", page.text);
        user
    }

    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.running.join_next().await {
            ended.unwrap().unwrap();
        }
    }
}

fn settings(db: &Db, api: &str, more: &[&str]) -> ServeSettings {
    let base = [
        "portal",
        "serve",
        "--listen-addr=127.0.0.1:0",
        "--api-key=0123456789abcdef",
        "--cloudfront-domain=http://127.0.0.1:8081",
        "--first-teacher-email",
        EMAIL,
        "--first-teacher-password",
        PASSWORD,
        "--first-class-code",
        CODE,
        "--database-url",
        db.url(),
        "--api-url",
        api,
    ];
    let cli = Cli::try_parse_from(base.iter().chain(more)).unwrap();
    let Command::Serve(settings) = cli.command else { panic!("another command") };
    settings.validate().unwrap();
    *settings
}

/// Looks again until `found` is something.
pub async fn eventually<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
