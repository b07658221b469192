//! One job as a trace viewer shows it: from the request to the picture, across the two services.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{ContainersError, wrong};
use crate::traces::jaeger::{Span, Trace, Traces};

/// Spans are sent every 5 s.
const PATIENCE: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(500);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Each step of a job, in the order in which they follow each other.
const STEPS: [&str; 3] = ["generate", "render", "publish"];

/// Asks a viewer of traces: Jaeger, or what takes its place.
#[derive(Debug)]
pub(super) struct Viewer {
    http: reqwest::Client,
    addr: SocketAddr,
}

/// A trace that we begin, as a caller of the API that is traced itself.
#[derive(Debug)]
pub(super) struct Began {
    trace_id: String,
}

impl Began {
    pub(super) fn new() -> Self {
        Self { trace_id: Uuid::new_v4().simple().to_string() }
    }

    pub(super) fn traceparent(&self) -> String {
        format!("00-{}-00f067aa0ba902b7-01", self.trace_id)
    }
}

impl Viewer {
    pub(super) fn new(addr: SocketAddr) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build();
        Self { http: http.expect("a client without TLS has nothing to load"), addr }
    }

    /// Waits until it answers at all.
    pub(super) async fn answers(&self) -> Result<(), ContainersError> {
        let unknown = Began::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.get(&unknown).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(wrong("the viewer of traces", error)),
                Err(_) => tokio::time::sleep(ASK_EVERY).await,
            }
        }
    }

    /// Waits until the trace shows the whole way of the job.
    pub(super) async fn shows_the_way_of(&self, began: &Began) -> Result<(), ContainersError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = match self.get(began).await {
                Ok(Some(trace)) => match lack(&trace) {
                    None => return Ok(()),
                    Some(lack) => format!("{lack}; of {:?}", names(&trace)),
                },
                Ok(None) => "it has not come".to_owned(),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= deadline {
                return Err(wrong(format!("the trace {}", began.trace_id), seen));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Returns the trace; None when it is not known.
    async fn get(&self, began: &Began) -> Result<Option<Trace>, reqwest::Error> {
        let url = format!("http://{}/api/traces/{}", self.addr, began.trace_id);
        let response = self.http.get(url).send().await?;
        if response.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let traces: Traces = response.error_for_status()?.json().await?;
        Ok(traces.data.into_iter().next())
    }
}

fn names(trace: &Trace) -> Vec<&str> {
    trace.spans.iter().map(|span| span.operation_name.as_str()).collect()
}

/// Returns what is missing of a job's way.
fn lack(trace: &Trace) -> Option<String> {
    let of = |service: &str, name: &str| -> Result<Span, String> {
        let (sender, span) = trace.only(name).ok_or_else(|| format!("`{name}` is not there, or more than once"))?;
        if sender == service { Ok(span.clone()) } else { Err(format!("`{name}` is of {sender} and not of {service}")) }
    };
    let way = || -> Result<(), String> {
        let submit = of("image-api", "POST /v1/jobs")?;
        let wait = of("image-worker", "queue wait")?;
        let process = of("image-worker", "process job")?;
        for (name, span) in [("queue wait", &wait), ("process job", &process)] {
            if !span.refers_to(&submit, "CHILD_OF") {
                return Err(format!("`{name}` is no child of the request"));
            }
        }
        if !process.refers_to(&submit, "FOLLOWS_FROM") {
            return Err("`process job` has no link to the request".to_owned());
        }
        let mut before = wait;
        for name in STEPS {
            let step = of("image-worker", name)?;
            if !step.refers_to(&process, "CHILD_OF") {
                return Err(format!("`{name}` is no child of `process job`"));
            }
            if step.start_time < before.start_time + before.duration {
                return Err(format!("`{name}` begins before `{}` has ended", before.operation_name));
            }
            before = step;
        }
        Ok(())
    };
    way().err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traces::CollectedSpan;

    fn spans() -> Vec<CollectedSpan> {
        let of = |service: &str, name: &str, parent: &str, links: &[&str], start_us: u64, end_us: u64| CollectedSpan {
            service: service.into(),
            name: name.into(),
            kind: "internal",
            trace_id: "t".into(),
            span_id: name.into(),
            parent_id: parent.into(),
            links: links.iter().map(|link| ("t".to_owned(), (*link).to_owned())).collect(),
            start_ns: start_us * 1000,
            end_ns: end_us * 1000,
            is_error: false,
            attributes: std::collections::BTreeMap::new(),
            events: vec![],
        };
        let submit = "POST /v1/jobs";
        vec![
            of("image-api", submit, "caller", &[], 0, 10),
            of("image-worker", "queue wait", submit, &[], 10, 20),
            of("image-worker", "process job", submit, &[submit], 20, 100),
            of("image-worker", "generate", "process job", &[], 21, 50),
            of("image-worker", "render", "process job", &[], 50, 70),
            of("image-worker", "publish", "process job", &[], 71, 99),
        ]
    }

    #[test]
    fn a_whole_way_lacks_nothing_and_each_lack_is_named() {
        let lack_of = |spans: &[CollectedSpan]| lack(&Trace::of("t", spans).unwrap());
        assert_eq!(lack_of(&spans()), None);
        for missing in 0..spans().len() {
            let mut spans = spans();
            let gone = spans.remove(missing);
            assert!(lack_of(&spans).unwrap().contains(&gone.name), "{}", gone.name);
        }
        type Change = fn(&mut CollectedSpan);
        let cases: [(usize, Change, &str); 4] = [
            (2, |span| span.links.clear(), "link"),
            (1, |span| span.parent_id.clear(), "child of the request"),
            (4, |span| span.service = "image-api".into(), "of image-api"),
            (5, |span| span.start_ns = 60_000, "before `render`"),
        ];
        for (at, change, said) in cases {
            let mut spans = spans();
            change(&mut spans[at]);
            assert!(lack_of(&spans).unwrap().contains(said), "{said}");
        }
    }
}
