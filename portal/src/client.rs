//! `ApiClient`: the picture API as any client sees it, by its public surface alone.

use std::time::Duration;

use job::{JobSpec, Status};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::settings::SecretText;

/// No call of ours is held by the API (`Prefer: wait` is not sent), so a slow answer is a fault.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What the API says when it says nothing about it.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(2);
/// Bounds of what an answer can ask of us: neither a loop without a pause, nor a picture that nobody looks for.
const MIN_RETRY_AFTER: Duration = Duration::from_millis(200);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// A request for one picture.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub prompt: String,
    pub seed: u32,
    pub idempotency_key: String,
    /// Kept with the picture, so that it goes where the picture goes; never drawn.
    pub alt_text: Option<String>,
}

/// An accepted request.
#[derive(Debug, Clone, Deserialize)]
pub struct Accepted {
    pub status_url: String,
}

/// What a poll brings.
#[derive(Debug, Clone, Deserialize)]
pub struct JobView {
    pub status: Status,
    pub image: Option<Image>,
    pub error: Option<Failure>,
    pub urls: Urls,
}

/// A picture that has been made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Image {
    pub url: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Base64; empty if there is none.
    #[serde(default)]
    pub thumbhash: String,
}

/// Why there is no picture.
#[derive(Debug, Clone, Deserialize)]
pub struct Failure {
    /// A sentence for the person who wrote the description.
    pub title: String,
}

/// Where to go from here.
#[derive(Debug, Clone, Deserialize)]
pub struct Urls {
    pub cancel: String,
}

/// A call without success.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApiError {
    /// Nothing is known to be wrong with the request: send it again.
    #[error("the API is unavailable: {reason}")]
    Unavailable { reason: String, retry_after: Option<Duration> },
    /// More than this tenant may ask for at once.
    #[error("the API takes no more requests for now")]
    TooMany { retry_after: Option<Duration> },
    /// Our key is not taken.
    #[error("the API does not take API_KEY")]
    KeyRejected,
    /// The request will not be taken as it is.
    #[error("the API refuses the request: {detail}")]
    Refused { detail: String },
    /// There is no such job.
    #[error("the API does not know this job")]
    NotFound,
    /// It has ended already.
    #[error("the job has ended already")]
    AlreadyFinal,
}

impl ApiError {
    /// Returns whether operators have paused the intake of new jobs, and nothing else is wrong.
    pub fn is_pause(&self) -> bool {
        matches!(self, Self::Unavailable { reason, .. } if reason.starts_with(INTAKE_PAUSED))
    }
}

/// The API's code for it.
const INTAKE_PAUSED: &str = "intake_paused";

/// RFC 9457, as far as it is used here.
#[derive(Debug, Default, Deserialize)]
struct Problem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
}

#[derive(Debug, Deserialize)]
struct BatchAnswer {
    jobs: Vec<BatchResult>,
}

#[derive(Debug, Deserialize)]
struct BatchResult {
    index: usize,
    status_url: Option<String>,
    error: Option<Problem>,
}

/// The client. It sends the key to one origin and to no other.
#[derive(Debug, Clone)]
pub struct ApiClient {
    http: reqwest::Client,
    origin: Url,
    key: SecretText,
}

impl ApiClient {
    /// Makes the client of an API.
    ///
    /// # Errors
    /// When the certificates of this machine cannot be read.
    pub fn new(origin: Url, key: SecretText) -> reqwest::Result<Self> {
        // Redirects are not followed: the key is for this origin.
        let http = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { http, origin, key })
    }

    /// Asks for one picture. The key makes it safe to ask again.
    ///
    /// # Errors
    /// By [`ApiError`].
    pub async fn submit(&self, wanted: &Wanted) -> Result<(Accepted, Duration), ApiError> {
        let request = self.http.post(self.url("/v1/jobs")?).header("Idempotency-Key", &wanted.idempotency_key);
        self.send(request.json(&wanted.spec())).await
    }

    /// Asks for several pictures in one call. Each has a result of its own, in the order of the request.
    ///
    /// # Errors
    /// By [`ApiError`], when none was taken.
    pub async fn submit_batch(
        &self,
        wanted: &[Wanted],
    ) -> Result<(Vec<Result<Accepted, ApiError>>, Duration), ApiError> {
        let job = |wanted: &Wanted| -> Value {
            let mut job = wanted.spec();
            job["idempotency_key"] = json!(wanted.idempotency_key);
            job
        };
        let body = json!({ "jobs": wanted.iter().map(job).collect::<Vec<_>>() });
        let (answer, after): (BatchAnswer, _) = self.send(self.http.post(self.url("/v1/batches")?).json(&body)).await?;
        let missing = || ApiError::Unavailable { reason: "a batch was answered in part".to_owned(), retry_after: None };
        let mut results: Vec<Result<Accepted, ApiError>> = wanted.iter().map(|_| Err(missing())).collect();
        for result in answer.jobs {
            let outcome = match (result.status_url, result.error) {
                (Some(status_url), _) => Ok(Accepted { status_url }),
                (None, Some(problem)) => Err(classify(&problem, StatusCode::UNPROCESSABLE_ENTITY, None)),
                (None, None) => Err(missing()),
            };
            if let Some(place) = results.get_mut(result.index) {
                *place = outcome;
            }
        }
        Ok((results, after))
    }

    /// Asks how far a job is, and when to ask again.
    ///
    /// # Errors
    /// By [`ApiError`].
    pub async fn job(&self, status_url: &str) -> Result<(JobView, Duration), ApiError> {
        self.send(self.http.get(self.url(status_url)?)).await
    }

    /// Withdraws a job by the URL that its view has.
    ///
    /// # Errors
    /// By [`ApiError`].
    pub async fn cancel(&self, cancel_url: &str) -> Result<(JobView, Duration), ApiError> {
        self.send(self.http.post(self.url(cancel_url)?)).await
    }

    /// Returns where a URL of the API's leads, on the origin that has our key. The API may know itself by a public name
    /// that leads elsewhere.
    fn url(&self, text: &str) -> Result<Url, ApiError> {
        let malformed = |_| unavailable(format!("its URL cannot be read: {text}"));
        let named = self.origin.join(text).map_err(malformed)?;
        let mut url = self.origin.clone();
        url.set_path(named.path());
        url.set_query(named.query());
        Ok(url)
    }

    async fn send<T: serde::de::DeserializeOwned>(&self, request: RequestBuilder) -> Result<(T, Duration), ApiError> {
        let answer = request.bearer_auth(self.key.reveal()).send().await;
        let answer = answer.map_err(|error| unavailable(described(&error)))?;
        let (status, retry_after) = (answer.status(), retry_after(answer.headers()));
        let body = answer.bytes().await.map_err(|error| unavailable(described(&error)))?;
        if !status.is_success() {
            let problem: Problem = serde_json::from_slice(&body).unwrap_or_default();
            return Err(classify(&problem, status, retry_after));
        }
        let parsed = serde_json::from_slice(&body);
        let parsed = parsed.map_err(|error| unavailable(format!("its answer cannot be read: {error}")))?;
        Ok((parsed, retry_after.unwrap_or(DEFAULT_RETRY_AFTER)))
    }
}

fn unavailable(reason: String) -> ApiError {
    ApiError::Unavailable { reason, retry_after: None }
}

/// Returns the kind of fault, without the URL: it says nothing that the log does not have.
fn described(error: &reqwest::Error) -> String {
    let kind = match error {
        error if error.is_timeout() => "no answer in time",
        error if error.is_connect() => "nothing answers at API_URL",
        _ => "the connection broke",
    };
    kind.to_owned()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).clamp(MIN_RETRY_AFTER, MAX_RETRY_AFTER))
}

/// By the code where there is one; what stands between us and the API answers with a status alone.
fn classify(problem: &Problem, status: StatusCode, retry_after: Option<Duration>) -> ApiError {
    match (problem.code.as_str(), status.as_u16()) {
        ("unauthenticated", _) | (_, 401 | 403) => ApiError::KeyRejected,
        ("rate_limited", _) | (_, 429) => ApiError::TooMany { retry_after },
        ("job_not_found", _) => ApiError::NotFound,
        ("job_already_final", _) => ApiError::AlreadyFinal,
        ("malformed_json" | "body_too_large" | "unsupported_media_type", _)
        | ("invalid_request" | "idempotency_key_reused", _) => ApiError::Refused { detail: problem.detail.clone() },
        (code, number) => {
            let what = if code.is_empty() { "an answer that is not its own" } else { code };
            ApiError::Unavailable { reason: format!("{what} ({number})"), retry_after }
        }
    }
}

impl Wanted {
    /// Makes the request for a picture that passes the API's own checks. An alternative text that does not is left out: the
    /// page shows it all the same, and a picture is not refused for it.
    ///
    /// # Errors
    /// When the description cannot be sent.
    pub fn new(prompt: String, alt: String, seed: u32, idempotency_key: String) -> Result<Self, job::InvalidJobSpec> {
        let spec = JobSpec::new(prompt, None, Some(seed))?;
        let alt_text = spec.clone().with_alt_text(Some(alt)).ok().and_then(|spec| spec.alt_text().map(str::to_owned));
        Ok(Self { prompt: spec.prompt().to_owned(), seed, idempotency_key, alt_text })
    }

    fn spec(&self) -> Value {
        let mut spec = json!({ "prompt": self.prompt, "seed": self.seed });
        if let Some(alt_text) = &self.alt_text {
            spec["alt_text"] = json!(alt_text);
        }
        spec
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> ApiClient {
        let key = SecretText::from("0123456789abcdef".to_owned());
        ApiClient::new("http://127.0.0.1:8080".parse().unwrap(), key).unwrap()
    }

    #[test]
    fn an_alternative_text_goes_with_the_picture_and_never_holds_it_up() {
        let wanted = |alt: &str| Wanted::new("a fox".to_owned(), alt.to_owned(), 7, "key".to_owned()).unwrap();
        assert_eq!(
            wanted("A fox in snow").spec(),
            json!({ "prompt": "a fox", "seed": 7, "alt_text": "A fox in snow" })
        );
        for unusable in ["", "two\nlines"] {
            assert_eq!(wanted(unusable).spec(), json!({ "prompt": "a fox", "seed": 7 }), "{unusable:?}");
        }
    }

    #[test]
    fn the_key_goes_to_one_origin_whatever_the_api_calls_itself() {
        for named in ["/v1/jobs/1", "https://pictures.example.com/v1/jobs/1", "//elsewhere.example.com/v1/jobs/1"] {
            assert_eq!(client().url(named).unwrap().as_str(), "http://127.0.0.1:8080/v1/jobs/1");
        }
    }

    #[test]
    fn what_may_be_sent_again_is_told_from_what_may_not() {
        let of = |code: &str, status: u16| {
            let problem = Problem { code: code.to_owned(), detail: "why".to_owned() };
            classify(&problem, StatusCode::from_u16(status).unwrap(), None)
        };
        assert!(matches!(of("queue_unavailable", 503), ApiError::Unavailable { .. }));
        assert!(of("intake_paused", 503).is_pause() && !of("queue_unavailable", 503).is_pause());
        assert_eq!(of("rate_limited", 429), ApiError::TooMany { retry_after: None });
        assert!(matches!(of("", 502), ApiError::Unavailable { .. }));
        // A wrong address, or a proxy: never a reason to tell a teacher that the description is at fault.
        assert!(matches!(of("route_not_found", 404), ApiError::Unavailable { .. }));
        assert!(matches!(of("", 404), ApiError::Unavailable { .. }));
        assert_eq!(of("invalid_request", 422), ApiError::Refused { detail: "why".to_owned() });
        assert_eq!(of("job_not_found", 404), ApiError::NotFound);
        assert_eq!(of("job_already_final", 409), ApiError::AlreadyFinal);
        assert_eq!(of("unauthenticated", 401), ApiError::KeyRejected);
    }
}
