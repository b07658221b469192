//! The `OpenAPI` document: what the handlers declare, completed with the headers and problems that are the same everywhere.

use std::collections::BTreeMap;

use utoipa::OpenApi as _;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Required, Response, ResponseBuilder};

use crate::extract::{MAX_IDEMPOTENCY_KEY_CHARS, MAX_WAIT_SECONDS};
use crate::problem::{Code, PROBLEM_JSON, ProblemBody};
use crate::view::status_schema;
use crate::webhooks::event;
use crate::{batch, cancel, events, fleet, list, retry, status, submit};

const DESCRIPTION: &str = "Submit a prompt, get a job id at once, poll its `status_url`, and fetch the picture from \
    the CDN once the job has succeeded.\n\nEvery error is an RFC 9457 problem with a stable `code`. Every answer \
    carries `X-Correlation-Id`. A method that an address does not take is answered with 405 and `Allow`, an unknown \
    address with 404 `route_not_found`.";

#[derive(utoipa::OpenApi)]
#[openapi(components(schemas(ProblemBody)), tags((name = "jobs", description = "Pictures in the making")))]
struct Base;

/// Returns the document before any route: who we are, how to authenticate, what an error looks like.
pub fn base() -> OpenApi {
    let mut document = Base::openapi();
    document.info.title = "Image jobs".to_owned();
    document.info.description = Some(DESCRIPTION.to_owned());
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The API key of a tenant, as in `Authorization: Bearer KEY`."))
        .build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("api_key", SecurityScheme::Http(scheme));
    document
}

/// Adds to every operation its header parameters, the headers of its answers and its problems.
///
/// # Panics
/// When an operation is not described here, so that none can be forgotten.
pub fn complete(mut document: OpenApi) -> OpenApi {
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            let id = operation.operation_id.clone().unwrap_or_default();
            let surface = SURFACES.iter().find(|surface| surface.operation_id == id);
            describe(operation, surface.expect("every operation has a surface"));
        }
    }
    event::describe(&mut document);
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post].into_iter().filter_map(Option::as_mut)
}

/// What an operation has besides its bodies.
struct Surface {
    operation_id: &'static str,
    parameters: &'static [Param],
    /// Headers of the answers that are not problems, by status.
    headers: &'static [(&'static str, &'static [Field])],
    problems: &'static [Code],
}

const SURFACES: &[Surface] = &[
    Surface {
        operation_id: "submit_job",
        parameters: &[Param::IdempotencyKey, Param::Traceparent, Param::CorrelationId],
        headers: &[("202", &[Field::Location, Field::RetryAfter, Field::CacheControl])],
        problems: submit::PROBLEMS,
    },
    Surface {
        operation_id: "submit_batch",
        parameters: &[Param::Traceparent, Param::CorrelationId],
        headers: &[("202", &[Field::RetryAfter, Field::CacheControl])],
        problems: batch::PROBLEMS,
    },
    Surface {
        operation_id: "list_jobs",
        parameters: &[Param::Cursor, Param::Limit, Param::Status, Param::Traceparent, Param::CorrelationId],
        headers: &[("200", &[Field::CacheControl])],
        problems: list::PROBLEMS,
    },
    Surface {
        operation_id: "get_job",
        parameters: &[Param::JobId, Param::Prefer, Param::IfNoneMatch, Param::Traceparent, Param::CorrelationId],
        headers: &[
            ("200", &[Field::ETag, Field::CacheControl, Field::RetryAfter, Field::PreferenceApplied]),
            ("304", &[Field::ETag, Field::CacheControl, Field::RetryAfter, Field::PreferenceApplied]),
        ],
        problems: status::PROBLEMS,
    },
    Surface {
        operation_id: "get_job_events",
        parameters: &[Param::JobId, Param::LastEventId, Param::Traceparent, Param::CorrelationId],
        headers: &[("200", &[Field::CacheControl]), ("204", &[Field::CacheControl])],
        problems: events::PROBLEMS,
    },
    Surface {
        operation_id: "cancel_job",
        parameters: &[Param::JobId, Param::Traceparent, Param::CorrelationId],
        headers: &[("200", &[Field::ETag, Field::CacheControl])],
        problems: cancel::PROBLEMS,
    },
    Surface {
        operation_id: "retry_job",
        parameters: &[Param::JobId, Param::Traceparent, Param::CorrelationId],
        headers: &[("202", &[Field::Location, Field::RetryAfter, Field::CacheControl])],
        problems: retry::PROBLEMS,
    },
    Surface {
        operation_id: "get_queue",
        parameters: &[Param::Traceparent, Param::CorrelationId],
        headers: &[("200", &[Field::CacheControl])],
        problems: fleet::PROBLEMS,
    },
];

#[derive(Clone, Copy)]
enum Param {
    JobId,
    Cursor,
    Limit,
    Status,
    IdempotencyKey,
    Prefer,
    IfNoneMatch,
    LastEventId,
    Traceparent,
    CorrelationId,
}

impl Param {
    /// Only what is refused when it does not fit has a pattern: the standards say to ignore the others.
    fn build(self) -> Parameter {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let visible_ascii = |max| text().min_length(Some(1)).max_length(Some(max)).pattern(Some("^[!-~]+$"));
        let (name, place, schema, description) = match self {
            Self::JobId => (
                "id",
                ParameterIn::Path,
                text().pattern(Some("^[0-9a-f]{32}-[0-9a-f]{16}$")),
                "The id from the answer to the POST.".to_owned(),
            ),
            Self::Cursor => (
                "cursor",
                ParameterIn::Query,
                text().pattern(Some(list::CURSOR_PATTERN)),
                "Where to go on: the `next_cursor` of the page before. Its form may change.".to_owned(),
            ),
            Self::Limit => (
                "limit",
                ParameterIn::Query,
                ObjectBuilder::new()
                    .schema_type(Type::Integer)
                    .minimum(Some(1))
                    .maximum(Some(list::MAX_LIMIT))
                    .default(Some(list::DEFAULT_LIMIT.into())),
                "Jobs on a page, at most.".to_owned(),
            ),
            Self::Status => {
                let schema = ObjectBuilder::from(status_schema());
                ("status", ParameterIn::Query, schema, "Only jobs in this state.".to_owned())
            }
            Self::IdempotencyKey => (
                "Idempotency-Key",
                ParameterIn::Header,
                visible_ascii(MAX_IDEMPOTENCY_KEY_CHARS),
                "The same key is the same job, so a request can be sent again after a timeout. With another spec: 422."
                    .to_owned(),
            ),
            Self::Prefer => (
                "Prefer",
                ParameterIn::Header,
                text(),
                format!(
                    "`wait=N` holds the answer until the job is final, at most N seconds (N up to {MAX_WAIT_SECONDS}; more is cut). Other preferences are ignored."
                ),
            ),
            Self::IfNoneMatch => (
                "If-None-Match",
                ParameterIn::Header,
                text(),
                "ETags the client has: 304 if the state is still one of them.".to_owned(),
            ),
            Self::LastEventId => (
                "Last-Event-ID",
                ParameterIn::Header,
                text(),
                "The id of the last event that the client has: what it told is not told again.".to_owned(),
            ),
            Self::Traceparent => (
                "traceparent",
                ParameterIn::Header,
                text(),
                "W3C trace context. One that does not parse is ignored: a new trace is started.".to_owned(),
            ),
            Self::CorrelationId => (
                "X-Correlation-Id",
                ParameterIn::Header,
                visible_ascii(128),
                "The caller's own name for this work: echoed, and carried to the logs of the worker.".to_owned(),
            ),
        };
        let required = if matches!(self, Self::JobId) { Required::True } else { Required::False };
        ParameterBuilder::new()
            .name(name)
            .parameter_in(place)
            .required(required)
            .schema(Some(schema))
            .description(Some(description))
            .build()
    }
}

#[derive(Clone, Copy)]
enum Field {
    Location,
    RetryAfter,
    CacheControl,
    ETag,
    PreferenceApplied,
    WwwAuthenticate,
    CorrelationId,
}

impl Field {
    fn build(self) -> (&'static str, Header) {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let (name, schema, description) = match self {
            Self::Location => ("Location", text(), "The same as `status_url`."),
            Self::RetryAfter => (
                "Retry-After",
                ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)),
                "Seconds to wait before the next request. Absent once the job is final.",
            ),
            Self::CacheControl => ("Cache-Control", text(), "`no-store` while the job is pending."),
            Self::ETag => ("ETag", text().pattern(Some("^\"[0-9a-f]{32}\"$")), "Names this state, for If-None-Match."),
            Self::PreferenceApplied => (
                "Preference-Applied",
                text().pattern(Some("^wait=[0-9]+$")),
                "`wait=N` when the answer was held, with the N that was used.",
            ),
            Self::WwwAuthenticate => ("WWW-Authenticate", text(), "How to authenticate: `Bearer`."),
            Self::CorrelationId => ("X-Correlation-Id", text(), "The request's, or a new one."),
        };
        let header = HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build();
        (name, header)
    }
}

fn describe(operation: &mut Operation, surface: &Surface) {
    let parameters = surface.parameters.iter().map(|parameter| RefOr::T(parameter.build())).collect();
    operation.parameters = Some(parameters);
    for (status, fields) in surface.headers {
        if let Some(RefOr::T(response)) = operation.responses.responses.get_mut(*status) {
            add_headers(response, fields);
        }
    }
    for (status, response) in problems(surface.problems) {
        operation.responses.responses.insert(status, RefOr::T(response));
    }
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            add_headers(response, &[Field::CorrelationId]);
        }
    }
}

fn add_headers(response: &mut Response, fields: &[Field]) {
    response.headers.extend(fields.iter().map(|field| {
        let (name, header) = field.build();
        (name.to_owned(), RefOr::T(header))
    }));
}

/// Returns one response for each status among `codes`.
fn problems(codes: &[Code]) -> BTreeMap<String, Response> {
    let mut by_status: BTreeMap<String, Vec<Code>> = BTreeMap::new();
    for &code in codes {
        by_status.entry(code.status().as_str().to_owned()).or_default().push(code);
    }
    let response = |(status, codes): (String, Vec<Code>)| {
        let lines = codes.iter().map(|code| format!("`{}`: {}", code.as_str(), code.title()));
        let description = lines.collect::<Vec<_>>().join("; ");
        let content = Content::new(Some(RefOr::Ref(Ref::from_schema_name("Problem"))));
        let mut response = ResponseBuilder::new().description(description).content(PROBLEM_JSON, content).build();
        add_headers(&mut response, &[Field::CacheControl]);
        match codes[0] {
            Code::Unauthenticated => add_headers(&mut response, &[Field::WwwAuthenticate]),
            Code::RateLimited | Code::QueueUnavailable | Code::StoreUnavailable => {
                add_headers(&mut response, &[Field::RetryAfter]);
            }
            _ => {}
        }
        (status, response)
    };
    by_status.into_iter().map(response).collect()
}
