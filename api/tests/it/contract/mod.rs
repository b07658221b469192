//! What the ports promise, checked alike on the in-memory fakes, the embedded services and MiniStack.

mod queue;
mod store;

use std::any::Any;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::queue::{JobQueue, SqsQueue};
use api::store::{RecordStore, S3Records};
use aws_credential_types::Credentials;
use devstack::embedded::sqs::SqsOptions;
use devstack::embedded::{EmbeddedS3, EmbeddedSqs, REGION, s3_client, sdk_config, sqs_client};
use devstack::ministack::Ministack;
use devstack::stack::{BUCKET, provision};
use jiff::Timestamp;
use job::{IdKeys, Job, JobSpec, TenantId, TraceContext};
use tokio::sync::OnceCell;

use crate::support::{ID_KEYS, MemoryQueue, MemoryRecords};
use queue::Workers;

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
pub(crate) enum Server {
    Memory,
    Embedded,
    Ministack,
}

/// A queue of its own.
pub(crate) struct QueueUnderTest {
    pub(crate) queue: Arc<dyn JobQueue>,
    pub(crate) workers: Arc<dyn Workers>,
    /// For adapters to other queues; None in memory.
    pub(crate) client: Option<aws_sdk_sqs::Client>,
    _server: Option<EmbeddedSqs>,
}

/// A store; its bucket may be shared, so every test has ids of its own.
pub(crate) struct StoreUnderTest {
    pub(crate) store: Arc<dyn RecordStore>,
    /// For adapters to other buckets, and to look behind the port; None in memory.
    pub(crate) client: Option<aws_sdk_s3::Client>,
    _server: Option<Box<dyn Any>>,
}

impl Server {
    pub(crate) async fn queue(self) -> QueueUnderTest {
        let (server, client) = match self {
            Self::Memory => {
                let queue = Arc::new(MemoryQueue::default());
                return QueueUnderTest { queue: queue.clone(), workers: queue, client: None, _server: None };
            }
            Self::Embedded => {
                let sqs = EmbeddedSqs::start(any_port(), SqsOptions::default()).await.unwrap();
                let client = sqs_client(&sqs.url());
                (Some(sqs), client)
            }
            Self::Ministack => (None, account(ministack().await.url())),
        };
        let urls = provision::queues(&client).await.unwrap();
        let queue = Arc::new(SqsQueue::new(client.clone(), urls.queue_url.clone(), None));
        let workers = Arc::new(queue::SqsWorkers { client: client.clone(), queue_url: urls.queue_url });
        QueueUnderTest { queue, workers, client: Some(client), _server: server }
    }

    pub(crate) async fn store(self) -> StoreUnderTest {
        let (server, url): (Option<Box<dyn Any>>, String) = match self {
            Self::Memory => {
                return StoreUnderTest { store: Arc::new(MemoryRecords::default()), client: None, _server: None };
            }
            Self::Embedded => {
                let dir = tempfile::tempdir().unwrap();
                let s3 = EmbeddedS3::start(any_port(), dir.path().to_owned()).await.unwrap();
                let url = s3.url();
                (Some(Box::new((s3, dir))), url)
            }
            Self::Ministack => (None, ministack().await.url().to_owned()),
        };
        let client = s3_client(&url);
        provision::bucket(&client).await.unwrap();
        let store = Arc::new(S3Records::new(client.clone(), BUCKET.to_owned()));
        StoreUnderTest { store, client: Some(client), _server: server }
    }
}

pub(crate) fn job(tenant: &str, prompt: &str) -> Job {
    let (keys, tenant): (IdKeys, TenantId) = (ID_KEYS.parse().unwrap(), tenant.parse().unwrap());
    Job {
        id: keys.issue(&tenant),
        tenant,
        spec: JobSpec::new(prompt.to_owned(), None, None).unwrap(),
        submitted_at: Timestamp::now(),
        deadline_at: None,
        retries: 0,
        trace: TraceContext::generate(),
    }
}

/// Returns the URL of a port that was free a moment ago.
pub(crate) fn nobody() -> String {
    format!("http://{}", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

fn any_port() -> SocketAddr {
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

/// Returns a client with an account of its own, and so queues of its own: MiniStack takes twelve digits as the account.
fn account(url: &str) -> aws_sdk_sqs::Client {
    static ACCOUNTS: AtomicU64 = AtomicU64::new(1);
    let id = format!("{:012}", ACCOUNTS.fetch_add(1, Ordering::Relaxed));
    let config = aws_sdk_sqs::config::Builder::from(&sdk_config())
        .region(aws_sdk_sqs::config::Region::new(REGION))
        .credentials_provider(Credentials::new(id, "secret", None, None, "contract"))
        .endpoint_url(url);
    aws_sdk_sqs::Client::from_conf(config.build())
}
