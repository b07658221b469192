//! `WebhookClient`: sends one webhook to a receiver, and connects to no address that it has not checked.

use std::error::Error as StdError;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode};
use thiserror::Error;

use super::address::not_public;
use super::receivers::{Receiver, literal};
use super::signature::sign;

/// One try in all: name, connection, request and answer. Standard Webhooks asks for 15 to 30 s.
pub const TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Read of an answer, so that a receiver that writes one is not cut off; what it says is not looked at.
const MAX_ANSWER_BYTES: usize = 4096;

/// Looks names up. Asked for every try: a name that was public a minute ago may be another one by now.
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// Returns every address of a host.
    ///
    /// # Errors
    /// When it has none, or nobody can tell.
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of this machine.
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|addr| addr.ip()).collect())
    }
}

/// Which addresses may be connected to.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    /// Says what an address is that is not to be connected to.
    pub refusal: fn(IpAddr) -> Option<&'static str>,
    /// Whether `http` will do.
    pub http: bool,
}

impl Reach {
    /// The public internet, by `https`.
    pub const PUBLIC: Self = Self { refusal: not_public, http: false };
    /// Everything: for a laptop.
    pub const ANYWHERE: Self = Self { refusal: |_| None, http: true };

    fn check(self, ip: IpAddr) -> Result<(), Refused> {
        (self.refusal)(ip).map_or(Ok(()), |is| Err(Refused { is }))
    }
}

/// An address that is not connected to. Which one is not told: names of a network are not for a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("its address is not public but {is}")]
pub struct Refused {
    pub is: &'static str,
}

/// What a receiver made of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has it.
    Taken(StatusCode),
    /// It wants no more of them.
    Gone,
    /// Not now.
    Later {
        /// None where nothing answered.
        status: Option<StatusCode>,
        /// What the receiver asks for.
        retry_after: Option<Duration>,
        /// For operators; has no part of the URL in it.
        reason: String,
    },
}

/// Sends webhooks.
pub struct WebhookClient {
    http: reqwest::Client,
    reach: Reach,
}

/// One webhook, as it is signed.
#[derive(Debug, Clone, Copy)]
pub struct Webhook<'a> {
    /// The same for each try.
    pub id: &'a str,
    /// Of this try, in seconds since 1970.
    pub timestamp: i64,
    pub payload: &'a str,
}

impl WebhookClient {
    /// Makes a client whose connections go where `reach` allows.
    ///
    /// # Errors
    /// When the certificates of this machine cannot be read.
    pub fn new(reach: Reach, lookup: Arc<dyn Lookup>) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .dns_resolver(Arc::new(Checked { lookup, reach }))
            // A proxy of the environment would look the name up itself.
            .no_proxy()
            .redirect(Policy::none())
            .https_only(!reach.http)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            // Each try has a connection of its own, to an address that was checked for it.
            .pool_max_idle_per_host(0)
            // An answer of kilobytes must not become one of gigabytes.
            .no_gzip()
            .user_agent(concat!("image-api/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { http, reach })
    }

    /// Sends a webhook, signed with every secret of the receiver, and returns what became of it within [`TIMEOUT`].
    pub async fn send(&self, receiver: &Receiver, webhook: Webhook<'_>) -> Answer {
        // An address in the URL is connected to without a look-up.
        if let Some(Err(refused)) = literal(&receiver.url).map(|ip| self.reach.check(ip)) {
            return Answer::unheard(refused.to_string());
        }
        let Webhook { id, timestamp, payload } = webhook;
        let request = self
            .http
            .post(receiver.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", sign(&receiver.secrets, id, timestamp, payload))
            .body(payload.to_owned());
        match request.send().await {
            Ok(response) => Answer::of(response).await,
            Err(error) => Answer::unheard(reason(&error)),
        }
    }
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (status, retry_after) = (response.status(), retry_after(&response));
        read_some(response).await;
        match status {
            _ if status.is_success() => Self::Taken(status),
            StatusCode::GONE => Self::Gone,
            _ => {
                let reason = if status.is_redirection() { "a redirect, which is not followed" } else { "not taken" };
                Self::Later { status: Some(status), retry_after, reason: reason.to_owned() }
            }
        }
    }

    fn unheard(reason: String) -> Self {
        Self::Later { status: None, retry_after: None, reason }
    }
}

async fn read_some(mut response: Response) {
    let mut left = MAX_ANSWER_BYTES;
    while let Ok(Some(chunk)) = response.chunk().await {
        match left.checked_sub(chunk.len()) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// Seconds of a 429 or 503; a date there is too rare to be read.
fn retry_after(response: &Response) -> Option<Duration> {
    let asks = matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let seconds = response.headers().get(RETRY_AFTER).filter(|_| asks)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The innermost cause: it has no part of the URL, while those around it may.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", TIMEOUT.as_secs());
    }
    let mut innermost: &dyn StdError = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if std::ptr::addr_eq(innermost, error) { "request could not be made".to_owned() } else { innermost.to_string() }
}

/// Lets no address through that `reach` refuses. The connection goes to what this returns, and is not looked up again.
struct Checked {
    lookup: Arc<dyn Lookup>,
    reach: Reach,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, reach) = (Arc::clone(&self.lookup), self.reach);
        Box::pin(async move {
            let addresses = lookup.addresses(name.as_str()).await?;
            // One bad address of several is enough: the connection would take whichever answers.
            for ip in &addresses {
                reach.check(*ip)?;
            }
            // Port 0 is that of the URL.
            Ok(Box::new(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Answers with one list after the other, as a name whose owner changes his mind.
    struct Rebinding(Mutex<Vec<Vec<IpAddr>>>);

    #[async_trait]
    impl Lookup for Rebinding {
        async fn addresses(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            Ok(self.0.lock().unwrap().remove(0))
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_and_checked_each_time() {
        let public: IpAddr = "93.184.216.34".parse().unwrap();
        let private: IpAddr = "127.0.0.1".parse().unwrap();
        let lookup = Arc::new(Rebinding(Mutex::new(vec![vec![public], vec![private], vec![public, private], vec![]])));
        let checked = Checked { lookup, reach: Reach::PUBLIC };
        let resolve = async || checked.resolve("n.example".parse().unwrap()).await.map(Iterator::collect::<Vec<_>>);
        assert_eq!(resolve().await.unwrap(), [SocketAddr::new(public, 0)]);
        let said = resolve().await.unwrap_err().to_string();
        assert_eq!(said, "its address is not public but loopback (RFC 1122)");
        assert!(resolve().await.is_err(), "one of two");
        assert!(resolve().await.unwrap().is_empty());
    }
}
