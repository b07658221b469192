//! What the ports promise, checked alike on the in-memory fakes, the embedded services and MiniStack.

mod queue;
mod store;
mod shelf;
mod timetable;
mod reconcile;

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::config::Builder as S3Config;
use devstack::embedded::sqs::SqsOptions;
use devstack::embedded::{EmbeddedS3, EmbeddedSqs, s3_client, sdk_config};
use devstack::ministack::Ministack;
use devstack::stack::{BUCKET, MAX_RECEIVE_COUNT, provision};
use tokio::sync::OnceCell;
use worker::lane::Entrance;
use worker::queue::{JobQueue, SqsQueue};
use worker::quota::TimetableStore;
use worker::store::{ObjectStore, S3Store, Shelf};

use crate::support::{MemoryQueue, MemoryStore};
use queue::Backstage;

/// Runs each promise on each implementation: `memory::promise`, `embedded::promise`, `ministack::promise`.
macro_rules! kept_everywhere {
    ($($promise:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(super::Server::Memory).await;
            })+
        }
        kept_on_servers!($($promise),+);
    };
}

/// Runs each promise where there is a server: what it promises does not exist in memory.
macro_rules! kept_on_servers {
    ($($promise:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(super::Server::Embedded).await;
            })+
        }
        mod ministack {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(super::Server::Ministack).await;
            })+
        }
    };
}
pub(crate) use {kept_everywhere, kept_on_servers};

/// Where a promise is checked.
#[derive(Debug, Clone, Copy)]
pub enum Server {
    Memory,
    Embedded,
    Ministack,
}

/// A queue of its own, with its dead-letter queue.
pub struct QueueUnderTest {
    pub queue: Arc<dyn JobQueue>,
    pub entrance: Arc<dyn Entrance>,
    pub backstage: Arc<dyn Backstage>,
    /// For adapters to other queues; None in memory.
    pub config: Option<SdkConfig>,
    _server: Option<EmbeddedSqs>,
}

/// A store; its bucket may be shared, so every test has ids of its own.
pub struct StoreUnderTest {
    pub store: Arc<dyn ObjectStore>,
    pub shelf: Arc<dyn Shelf>,
    pub timetable: Arc<dyn TimetableStore>,
    pub memory: Option<Arc<MemoryStore>>,
    pub config: Option<SdkConfig>,
    _server: Option<Box<dyn Any>>,
}

impl Server {
    /// Makes a queue: `wait` is the long poll, `lease` how long a delivery stays hidden at first.
    pub async fn queue(self, wait: Duration, lease: Duration) -> QueueUnderTest {
        let (server, config) = match self {
            Self::Memory => {
                let queue = Arc::new(MemoryQueue::new(lease, wait, MAX_RECEIVE_COUNT));
                let (entrance, backstage) = (queue.clone(), queue.clone());
                return QueueUnderTest { queue, entrance, backstage, config: None, _server: None };
            }
            Self::Embedded => {
                let sqs = EmbeddedSqs::start(any_port(), SqsOptions::default()).await.unwrap();
                let config = sdk_config().into_builder().endpoint_url(sqs.url()).build();
                (Some(sqs), config)
            }
            Self::Ministack => (None, account(ministack().await.url())),
        };
        let client = aws_sdk_sqs::Client::new(&config);
        let urls = provision::queues(&client).await.unwrap();
        let queue = Arc::new(SqsQueue::new(&config, urls.queue_url.clone(), wait, lease));
        let backstage = Arc::new(queue::SqsBackstage { client, urls });
        QueueUnderTest { queue: queue.clone(), entrance: queue, backstage, config: Some(config), _server: server }
    }

    pub async fn store(self) -> StoreUnderTest {
        let (server, url): (Option<Box<dyn Any>>, String) = match self {
            Self::Memory => {
                let store = Arc::new(MemoryStore::default());
                let (shelf, timetable, memory) = (store.clone(), store.clone(), Some(store.clone()));
                return StoreUnderTest { store, shelf, timetable, memory, config: None, _server: None };
            }
            Self::Embedded => {
                let dir = tempfile::tempdir().unwrap();
                let s3 = EmbeddedS3::start(any_port(), dir.path().to_owned()).await.unwrap();
                let url = s3.url();
                (Some(Box::new((s3, dir))), url)
            }
            Self::Ministack => (None, ministack().await.url().to_owned()),
        };
        provision::bucket(&s3_client(&url)).await.unwrap();
        let config = sdk_config().into_builder().endpoint_url(url).build();
        let store = Arc::new(S3Store::new(&config, BUCKET.to_owned()));
        let (shelf, timetable) = (store.clone(), store.clone());
        StoreUnderTest { store, shelf, timetable, memory: None, config: Some(config), _server: server }
    }
}

impl StoreUnderTest {
    /// Returns a client that looks behind the port; None in memory.
    pub fn client(&self) -> Option<aws_sdk_s3::Client> {
        let config = S3Config::from(self.config.as_ref()?).force_path_style(true).build();
        Some(aws_sdk_s3::Client::from_conf(config))
    }
}

fn any_port() -> std::net::SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Starts MiniStack once for all tests of this process. It ends with the process, however that ends.
async fn ministack() -> &'static Ministack {
    static MINISTACK: OnceCell<Ministack> = OnceCell::const_new();
    let start = async || {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.dev");
        Ministack::start(&dir, 0).await.unwrap_or_else(|error| panic!("MiniStack is part of this suite: {error}"))
    };
    MINISTACK.get_or_init(start).await
}

/// Returns credentials of an account of its own, and so queues of its own: MiniStack takes twelve digits as the account.
fn account(url: &str) -> SdkConfig {
    static ACCOUNTS: AtomicU64 = AtomicU64::new(1);
    let id = format!("{:012}", ACCOUNTS.fetch_add(1, Ordering::Relaxed));
    let credentials = SharedCredentialsProvider::new(Credentials::new(id, "secret", None, None, "contract"));
    sdk_config().into_builder().credentials_provider(credentials).endpoint_url(url).build()
}
