//! The Stability models' JSON: what is sent, and what their answers mean.

use std::borrow::Cow;

use clap::ValueEnum;
use job::Place;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::classify::harmless;
use super::{GenerateRequest, SourceImage};
use crate::error::{JobError, Kind};

/// Longest finish reason that is passed on, in characters: the documented ones have 40.
const MAX_REASON_CHARS: usize = 200;

/// The text-to-image models this worker speaks to. All three are served in us-west-2 only (November 2026).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StabilityModel {
    ImageCore,
    ImageUltra,
    Sd35Large,
}

/// How the model encodes the picture that it returns. Lower case although the documentation of Core and Ultra spells it PNG:
/// it is what working clients send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OutputFormat {
    /// Loses nothing, so that the picture is lossy once.
    #[default]
    Png,
    /// Smaller to receive and to keep, and lossy twice in the end.
    Jpeg,
    /// As JPEG. Stable Diffusion 3.5 alone.
    Webp,
}

/// A model id whose request and answer we do not know.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "model '{0}' is not supported: use {core}, {ultra} or {sd35}, or its foundation-model ARN \
     (Amazon Titan Image Generator and Nova Canvas have reached their end of life; \
     no inference profile exists for these models)",
    core = StabilityModel::ImageCore.id(),
    ultra = StabilityModel::ImageUltra.id(),
    sd35 = StabilityModel::Sd35Large.id()
)]
pub struct UnknownModel(String);

impl StabilityModel {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ImageCore, Self::ImageUltra, Self::Sd35Large];

    /// Finds the model of an id or of a foundation-model ARN.
    ///
    /// # Errors
    /// When it is not one of [`ALL`](Self::ALL); the text lists them.
    pub fn for_id(model_id: &str) -> Result<Self, UnknownModel> {
        let id = foundation_model_of_arn(model_id).unwrap_or(model_id);
        Self::ALL.into_iter().find(|model| model.id() == id).ok_or_else(|| UnknownModel(model_id.to_owned()))
    }

    /// Returns the model's id on Bedrock.
    pub fn id(self) -> &'static str {
        match self {
            Self::ImageCore => "stability.stable-image-core-v1:1",
            Self::ImageUltra => "stability.stable-image-ultra-v1:1",
            Self::Sd35Large => "stability.sd3-5-large-v1:0",
        }
    }

    /// Returns the largest seed the model takes.
    pub fn max_seed(self) -> u32 {
        match self {
            Self::ImageCore | Self::ImageUltra => u32::MAX,
            Self::Sd35Large => u32::MAX - 1,
        }
    }

    /// Returns whether the model can be asked for this format.
    pub fn returns(self, format: OutputFormat) -> bool {
        format != OutputFormat::Webp || self == Self::Sd35Large
    }

    /// Returns the body of an `InvokeModel` request.
    pub fn request_body(self, request: &GenerateRequest, output_format: OutputFormat) -> Vec<u8> {
        let body = RequestBody {
            prompt: &request.prompt,
            negative_prompt: request.negative_prompt.as_deref(),
            // Current documentation of Core does not know the field.
            mode: match self {
                Self::ImageCore => None,
                Self::ImageUltra | Self::Sd35Large => Some("text-to-image"),
            },
            aspect_ratio: "1:1",
            output_format,
            // A larger seed would be refused, and with it the job, for good.
            seed: request.seed.min(self.max_seed()),
        };
        serde_json::to_vec(&body).expect("texts and numbers always serialise")
    }
}

/// Returns the id in `arn:aws:bedrock:us-west-2::foundation-model/ID`.
fn foundation_model_of_arn(arn: &str) -> Option<&str> {
    let (_partition, rest) = arn.strip_prefix("arn:")?.split_once(":bedrock:")?;
    let (_region, id) = rest.split_once("::foundation-model/")?;
    Some(id)
}

#[derive(Serialize)]
struct RequestBody<'a> {
    prompt: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    negative_prompt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    aspect_ratio: &'static str,
    output_format: OutputFormat,
    seed: u32,
}

/// Any field may be absent: a refusal is an HTTP 200 with nothing but `finish_reasons`.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    finish_reasons: Option<Vec<Option<Text<'a>>>>,
    #[serde(borrow, default)]
    images: Option<Vec<Option<Text<'a>>>>,
    /// Documented as strings, seen as numbers. Not worth losing a paid picture over, so anything parses.
    #[serde(default)]
    seeds: serde_json::Value,
}

/// Borrows from the body unless the JSON string has escapes: serde borrows a `Cow` only as a field of its own.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// Reads the body of the answer to `request`, whose seed is also that of the picture when the answer does not tell. Only the first
/// picture counts: we ask for one.
///
/// # Errors
/// `ContentFiltered`, `ModelFailed` ('Inference error') or `ModelAnswerMalformed`.
pub fn parse_answer(body: &[u8], request: &GenerateRequest) -> Result<SourceImage, JobError> {
    // Only line, column and serde's category: its message may quote the body.
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|error| {
        malformed(format!("answer of {} bytes is not as documented: {}", body.len(), Place::from(error)))
    })?;
    if let Some(reason) = first(&answer.finish_reasons) {
        return Err(finish_error(&reason.0, request));
    }
    let Some(image) = first(&answer.images) else {
        return Err(malformed("answer has neither a finish reason nor an image"));
    };
    let bytes = base64_simd::STANDARD
        .decode_to_vec(image.0.as_bytes())
        .map_err(|_| malformed(format!("image of {} characters is not base64, or cut off", image.0.len())))?;
    if bytes.is_empty() {
        return Err(malformed("image is empty"));
    }
    Ok(SourceImage { bytes: bytes.into(), seed: seed_of(&answer.seeds).unwrap_or(request.seed) })
}

fn first<'a, 'b>(items: &'b Option<Vec<Option<Text<'a>>>>) -> Option<&'b Text<'a>> {
    items.as_ref()?.first()?.as_ref()
}

fn seed_of(seeds: &serde_json::Value) -> Option<u32> {
    let seed = seeds.get(0)?;
    let number = seed.as_u64().or_else(|| seed.as_str()?.parse().ok())?;
    u32::try_from(number).ok()
}

/// The reason is the model's own text and ends in the log, the record and the client's answer.
fn finish_error(reason: &str, request: &GenerateRequest) -> JobError {
    // First without the prompt: once it is cut, a quote could not be found any more.
    let detail: String = harmless(reason.to_owned(), request).chars().take(MAX_REASON_CHARS).collect();
    if reason.starts_with("Filter reason:") {
        JobError::new(Kind::ContentFiltered, detail)
    } else if reason == "Inference error" {
        JobError::new(Kind::ModelFailed, detail)
    } else {
        malformed(format!("unknown finish reason '{detail}'"))
    }
}

fn malformed(detail: impl Into<String>) -> JobError {
    JobError::new(Kind::ModelAnswerMalformed, detail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn request(negative_prompt: Option<&str>, seed: u32) -> GenerateRequest {
        GenerateRequest { prompt: "a \"fox\"\n狐".into(), negative_prompt: negative_prompt.map(str::to_owned), seed }
    }

    fn parsed(body: &[u8], seed: u32) -> Result<SourceImage, JobError> {
        parse_answer(body, &request(Some("rain in the woods"), seed))
    }

    fn sent(model: StabilityModel, request: &GenerateRequest) -> Value {
        serde_json::from_slice(&model.request_body(request, OutputFormat::default())).unwrap()
    }

    #[test]
    fn ids_and_foundation_model_arns_are_known() {
        for model in StabilityModel::ALL {
            assert_eq!(StabilityModel::for_id(model.id()), Ok(model));
            let arn = format!("arn:aws:bedrock:us-west-2::foundation-model/{}", model.id());
            assert_eq!(StabilityModel::for_id(&arn), Ok(model));
        }
    }

    #[test]
    fn other_ids_are_refused_with_the_list_of_supported_ones() {
        for id in [
            "",
            "amazon.titan-image-generator-v2:0",
            "amazon.nova-canvas-v1:0",
            "stability.stable-image-core-v1:0",
            "us.stability.stable-image-core-v1:1",
            " stability.stable-image-core-v1:1",
            "arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/abc",
        ] {
            let text = StabilityModel::for_id(id).unwrap_err().to_string();
            assert!(text.starts_with(&format!("model '{id}' is not supported")), "{text}");
            for model in StabilityModel::ALL {
                assert!(text.contains(model.id()), "{text}");
            }
            assert!(text.contains("Titan") && text.contains("Nova Canvas") && text.contains("end of life"), "{text}");
        }
    }

    #[test]
    fn each_family_gets_the_fields_it_documents() {
        let core = sent(StabilityModel::ImageCore, &request(None, 7));
        let expected = json!({"prompt": "a \"fox\"\n狐", "aspect_ratio": "1:1", "output_format": "png", "seed": 7});
        assert_eq!(core, expected);
        for model in [StabilityModel::ImageUltra, StabilityModel::Sd35Large] {
            let body = sent(model, &request(Some("rain"), 7));
            assert_eq!(body["mode"], "text-to-image");
            assert_eq!(body["negative_prompt"], "rain");
        }
    }

    #[test]
    fn the_format_is_asked_for_in_lower_case_and_webp_of_one_model_alone() {
        for (format, name) in [(OutputFormat::Png, "png"), (OutputFormat::Jpeg, "jpeg"), (OutputFormat::Webp, "webp")] {
            let body = StabilityModel::Sd35Large.request_body(&request(None, 7), format);
            assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["output_format"], name);
        }
        let of = |format| StabilityModel::ALL.map(|model| model.returns(format));
        assert_eq!(of(OutputFormat::Png), [true; 3]);
        assert_eq!(of(OutputFormat::Jpeg), [true; 3]);
        assert_eq!(of(OutputFormat::Webp), [false, false, true]);
    }

    #[test]
    fn a_seed_stays_within_the_models_range() {
        assert_eq!(sent(StabilityModel::ImageCore, &request(None, u32::MAX))["seed"], 4_294_967_295_u32);
        assert_eq!(sent(StabilityModel::Sd35Large, &request(None, u32::MAX))["seed"], 4_294_967_294_u32);
    }

    #[test]
    fn a_picture_is_taken_with_its_seed() {
        for (seeds, seed) in [
            (json!([2_130_420_379_u32]), 2_130_420_379),
            (json!(["2130420379"]), 2_130_420_379),
            (json!([7, 8]), 7),
            (json!([]), 5),
            (json!(null), 5),
            (json!(["x"]), 5),
            (json!([1.5]), 5),
            (json!([4_294_967_296_u64]), 5),
            (json!("7"), 5),
        ] {
            let body = json!({"seeds": seeds, "finish_reasons": [null], "images": ["AAEC", "!"]}).to_string();
            let expected = SourceImage { bytes: vec![0, 1, 2].into(), seed };
            assert_eq!(parsed(body.as_bytes(), 5), Ok(expected), "{body}");
        }
        // Fields may be missing, unknown or escaped.
        for body in [r#"{"images":["AAEC"]}"#, r#"{"more":{},"images":["\u0041AEC"],"finish_reasons":[]}"#] {
            assert_eq!(parsed(body.as_bytes(), 5).unwrap().bytes.as_ref(), [0, 1, 2]);
        }
        let slash = parsed(br#"{"images":["\/\/\/\/"]}"#, 5).unwrap();
        assert_eq!(slash.bytes.as_ref(), [255, 255, 255]);
    }

    #[test]
    fn an_answer_without_a_picture_is_told_apart() {
        let long = format!(r#"{{"finish_reasons":["{}"]}}"#, "x".repeat(5000));
        for (body, kind) in [
            (r#"{"finish_reasons":["Filter reason: prompt"]}"#, Kind::ContentFiltered),
            (r#"{"finish_reasons":["Filter reason: output image"],"images":["AAEC"]}"#, Kind::ContentFiltered),
            (r#"{"finish_reasons":["Filter reason: input image"],"images":[null]}"#, Kind::ContentFiltered),
            (r#"{"finish_reasons":["Inference error"],"seeds":[1]}"#, Kind::ModelFailed),
            (r#"{"finish_reasons":["Tired"],"images":["AAEC"]}"#, Kind::ModelAnswerMalformed),
            (&long, Kind::ModelAnswerMalformed),
            (r#"{"finish_reasons":[null]}"#, Kind::ModelAnswerMalformed),
            (r#"{"finish_reasons":[null],"images":[]}"#, Kind::ModelAnswerMalformed),
            (r#"{"finish_reasons":[null],"images":[null]}"#, Kind::ModelAnswerMalformed),
            (r#"{"finish_reasons":[null],"images":[""]}"#, Kind::ModelAnswerMalformed),
            (r#"{"finish_reasons":[null],"images":["AAECA"]}"#, Kind::ModelAnswerMalformed),
            (r#"{"finish_reasons":[null],"images":["AA=C"]}"#, Kind::ModelAnswerMalformed),
            (r#"{"finish_reasons":[null],"images":"AAEC"}"#, Kind::ModelAnswerMalformed),
            (r#"{"finish_reasons":[null],"images":["AAEC"]"#, Kind::ModelAnswerMalformed),
            ("<html>busy</html>", Kind::ModelAnswerMalformed),
            ("", Kind::ModelAnswerMalformed),
            ("{}", Kind::ModelAnswerMalformed),
            ("null", Kind::ModelAnswerMalformed),
        ] {
            let error = parsed(body.as_bytes(), 5).unwrap_err();
            assert_eq!(error.kind, kind, "{body}: {error}");
            assert!(error.detail.len() < 300, "{error}");
        }
        let refused = parsed(br#"{"finish_reasons":["Filter reason: prompt"]}"#, 5).unwrap_err();
        assert_eq!(refused.detail, "Filter reason: prompt");
    }

    #[test]
    fn a_finish_reason_never_quotes_the_prompt_in_whatever_form() {
        let prompt = "a \"secret\" garden\n狐 \u{1F98A}";
        let request = GenerateRequest { prompt: prompt.into(), negative_prompt: Some("no crows".into()), seed: 7 };
        let escaped = r#"a \"secret\" garden\n狐 🦊"#;
        let ascii = r#"a \"secret\" garden\n\u72d0 \ud83e\udd8a"#;
        // Far enough in that a cut alone would leave a part of it.
        let filler = "x".repeat(MAX_REASON_CHARS - 25);
        for quote in [prompt, escaped, ascii, "no crows"] {
            for reason in [format!("Filter reason: {quote}"), format!("Tired of {quote}"), format!("{filler} {quote}")]
            {
                let body = json!({ "finish_reasons": [reason] }).to_string();
                let detail = parse_answer(body.as_bytes(), &request).unwrap_err().detail;
                assert!(detail.contains("[prompt]"), "{detail}");
                assert!(!detail.contains("secret") && !detail.contains("crows"), "{detail}");
                assert!(detail.chars().count() < MAX_REASON_CHARS + 30, "{detail}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let answer = parsed(&body, 5);
            prop_assert!(answer.is_err() || serde_json::from_slice::<Value>(&body).is_ok());
        }

        #[test]
        fn any_picture_survives_the_way(bytes in proptest::collection::vec(any::<u8>(), 1..200), seed: u32) {
            let image = base64_simd::STANDARD.encode_to_string(&bytes);
            let body = json!({"seeds": [seed], "finish_reasons": [null], "images": [image]}).to_string();
            prop_assert_eq!(parsed(body.as_bytes(), 0), Ok(SourceImage { bytes: bytes.into(), seed }));
            // Cut off anywhere, it is an error and not half a picture.
            let cut = seed as usize % body.len();
            prop_assert_eq!(parsed(&body.as_bytes()[..cut], 0).unwrap_err().kind, Kind::ModelAnswerMalformed);
        }
    }
}
