//! `Event`: what a webhook says: which end a job has come to, and the job as its owner would read it.

use jiff::Timestamp;
use job::Record;
use serde::Serialize;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, PathsBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Required, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};

use crate::view::{JobView, words};

/// A job has come to an end. The body of a webhook.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = WebhookEvent)]
pub struct Event {
    /// `job.` and the state.
    #[serde(rename = "type")]
    #[schema(schema_with = kind_schema)]
    pub kind: String,
    /// When the job came to this end.
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: Timestamp,
    /// The job, as it reads when this is sent.
    pub data: JobView,
}

impl Event {
    /// Makes the event of a record that has an end.
    pub fn of(record: &Record, view: JobView) -> Self {
        let timestamp = record.finished_at.unwrap_or(record.updated_at);
        Self { kind: format!("job.{}", view.status), timestamp, data: view }
    }
}

/// Returns the id of the webhook of this end, the same however often it is sent: a receiver that has seen it drops it. Another
/// end of the same job, after a retry or a redrive, is another event.
pub fn webhook_id(record: &Record) -> String {
    format!("job_{}_{}_{}", record.id, record.retries, record.status)
}

fn kind_schema() -> Object {
    words("Which end it is.", ["job.succeeded", "job.failed", "job.blocked", "job.canceled", "job.expired"])
}

/// Adds to the document what receivers get. No route of this service: it is sent, to those that the operator has named.
pub fn describe(document: &mut OpenApi) {
    let mut schemas = vec![(Event::name().into_owned(), Event::schema())];
    Event::schemas(&mut schemas);
    document.components.get_or_insert_default().schemas.extend(schemas);
    let content = Content::new(Some(RefOr::Ref(Ref::from_schema_name(Event::name()))));
    let body = RequestBodyBuilder::new().content("application/json", content).required(Some(Required::True)).build();
    let header = |name, kind, description: &str| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::True)
            .schema(Some(ObjectBuilder::new().schema_type(kind)))
            .description(Some(description))
            .build()
    };
    let operation = OperationBuilder::new()
        .operation_id(Some("job_ended"))
        .tag("webhooks")
        .summary(Some("A job has ended"))
        .description(Some(
            "Sent at least once, after Standard Webhooks, to the receiver that the operator has named for the tenant. \
             Any 2xx takes it, 410 ends it, anything else is tried again for a day.",
        ))
        .parameter(header("webhook-id", Type::String, "The same however often this is sent: drop what you have seen."))
        .parameter(header("webhook-timestamp", Type::Integer, "Seconds since 1970, of this try."))
        .parameter(header(
            "webhook-signature",
            Type::String,
            "`v1,` and the base64 of an HMAC-SHA256; with two secrets two, with a space between.",
        ))
        .request_body(Some(body))
        .response("2XX", ResponseBuilder::new().description("The receiver has it").build())
        .response("410", ResponseBuilder::new().description("The receiver wants no more").build())
        .build();
    let item = PathItem::new(HttpMethod::Post, operation);
    document.webhooks = Some(PathsBuilder::new().path("job_ended", item).build());
}

#[cfg(test)]
mod tests {
    use job::Status;

    use super::*;

    #[test]
    fn the_document_names_every_end() {
        let kinds = serde_json::to_value(kind_schema()).unwrap()["enum"].clone();
        let mut ends: Vec<String> =
            Status::ALL.into_iter().filter(|status| status.is_final()).map(|status| format!("job.{status}")).collect();
        let mut named: Vec<String> = serde_json::from_value(kinds).unwrap();
        ends.sort();
        named.sort();
        assert_eq!(named, ends);
    }
}
