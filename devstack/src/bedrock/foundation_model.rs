//! `GetFoundationModel` of the control plane, as far as it tells where a model is in its life.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Shared;
use super::exception::Exception;
use super::invoke::is_signed;
use super::request::Model;

/// What the list of models says of every model: `PUT /_standin/faults` with `"life": "legacy"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Life {
    #[default]
    Active,
    /// With an end in the year 2999.
    Legacy,
    /// Legacy, with an end that has passed.
    Ended,
    /// Not in the list.
    Missing,
    /// Whoever asks may not.
    Hidden,
}

/// `GET /foundation-models/{modelIdentifier}`.
pub(super) async fn get_foundation_model(
    State(shared): State<Arc<Shared>>,
    Path(model_id): Path<String>,
    headers: HeaderMap,
) -> Response {
    if !is_signed(&headers) {
        return Exception::unauthenticated().into_response();
    }
    if let Err(exception) = Model::of_id(&model_id) {
        return exception.into_response();
    }
    let lifecycle = match shared.plan().life {
        Life::Active => json!({ "status": "ACTIVE", "startOfLifeTime": "2025-01-01T00:00:00Z" }),
        Life::Legacy => json!({ "status": "LEGACY", "endOfLifeTime": "2999-01-01T00:00:00Z" }),
        Life::Ended => json!({ "status": "LEGACY", "endOfLifeTime": "2026-01-01T00:00:00Z" }),
        Life::Missing => return Exception::unknown_model(&model_id).into_response(),
        Life::Hidden => return Exception::not_authorized("bedrock:GetFoundationModel").into_response(),
    };
    let arn = format!("arn:aws:bedrock:us-west-2::foundation-model/{model_id}");
    let details = json!({
        "modelArn": arn, "modelId": model_id, "providerName": "Stability AI", "inputModalities": ["TEXT"],
        "outputModalities": ["IMAGE"], "inferenceTypesSupported": ["ON_DEMAND"], "modelLifecycle": lifecycle,
    });
    Json(json!({ "modelDetails": details })).into_response()
}
