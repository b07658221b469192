//! The three Stability models and the requests they take (AWS docs, *Stability AI models*).

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::exception::Exception;

/// Longest prompt and negative prompt, in characters.
const MAX_PROMPT_CHARS: usize = 10_000;
const ASPECT_RATIOS: [&str; 9] = ["16:9", "1:1", "21:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21"];

/// A model this stand-in answers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Model {
    Core,
    Ultra,
    Sd35Large,
}

/// What the picture is encoded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum OutputFormat {
    Png,
    Jpeg,
    Webp,
}

/// A request that passed validation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InvokeRequest {
    pub(crate) prompt: String,
    pub(crate) negative_prompt: String,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) output_format: OutputFormat,
    /// 0 means: draw one.
    pub(crate) seed: u32,
}

impl Model {
    /// Finds the model of an id.
    pub(crate) fn of_id(id: &str) -> Result<Self, Exception> {
        match id {
            "stability.stable-image-core-v1:1" => Ok(Self::Core),
            "stability.stable-image-ultra-v1:1" => Ok(Self::Ultra),
            "stability.sd3-5-large-v1:0" => Ok(Self::Sd35Large),
            "stability.stable-image-core-v1:0" | "stability.stable-image-ultra-v1:0" | "stability.sd3-large-v1:0" => {
                Err(Exception::retired_model())
            }
            _ if id.starts_with("amazon.titan-image-generator") || id.starts_with("amazon.nova-canvas") => {
                Err(Exception::retired_model())
            }
            _ => Err(Exception::unknown_model(id)),
        }
    }

    fn max_seed(self) -> u64 {
        match self {
            Self::Core | Self::Ultra => 4_294_967_295,
            Self::Sd35Large => 4_294_967_294,
        }
    }

    fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Core => &["prompt", "aspect_ratio", "output_format", "seed", "negative_prompt"],
            Self::Ultra | Self::Sd35Large => {
                &["prompt", "aspect_ratio", "output_format", "seed", "negative_prompt", "mode", "image", "strength"]
            }
        }
    }

    fn output_formats(self) -> &'static [&'static str] {
        match self {
            // The documents spell them in capitals, working code does not.
            Self::Core | Self::Ultra => &["png", "jpeg", "PNG", "JPEG"],
            Self::Sd35Large => &["jpeg", "png", "webp"],
        }
    }

    /// Core and Ultra: at most 1536 pixels a side. SD3.5: about a megapixel, in multiples of 64.
    fn size(self, aspect_ratio: &str) -> (u32, u32) {
        match (self, aspect_ratio) {
            (Self::Core | Self::Ultra, "16:9") => (1536, 864),
            (Self::Core | Self::Ultra, "9:16") => (864, 1536),
            (Self::Core | Self::Ultra, "21:9") => (1536, 658),
            (Self::Core | Self::Ultra, "9:21") => (658, 1536),
            (Self::Core | Self::Ultra, "3:2") => (1536, 1024),
            (Self::Core | Self::Ultra, "2:3") => (1024, 1536),
            (Self::Core | Self::Ultra, "5:4") => (1536, 1228),
            (Self::Core | Self::Ultra, "4:5") => (1228, 1536),
            (Self::Core | Self::Ultra, _) => (1536, 1536),
            (Self::Sd35Large, "16:9") => (1344, 768),
            (Self::Sd35Large, "9:16") => (768, 1344),
            (Self::Sd35Large, "21:9") => (1536, 640),
            (Self::Sd35Large, "9:21") => (640, 1536),
            (Self::Sd35Large, "3:2") => (1216, 832),
            (Self::Sd35Large, "2:3") => (832, 1216),
            (Self::Sd35Large, "5:4") => (1088, 896),
            (Self::Sd35Large, "4:5") => (896, 1088),
            (Self::Sd35Large, _) => (1024, 1024),
        }
    }
}

impl InvokeRequest {
    /// Checks a body as the model would.
    pub(crate) fn parse(model: Model, body: &Value) -> Result<Self, Exception> {
        let invalid = |defect: String| Exception::invalid(&defect);
        let fields = body.as_object().ok_or_else(|| invalid("expected type: JSONObject".into()))?;
        if let Some(unknown) = fields.keys().find(|key| !model.fields().contains(&key.as_str())) {
            return Err(invalid(format!("#: extraneous key [{unknown}] is not permitted")));
        }
        let prompt = text(fields, "prompt")?.ok_or_else(|| invalid("#: required key [prompt] not found".into()))?;
        let negative_prompt = text(fields, "negative_prompt")?.unwrap_or_default();
        for (name, value) in [("prompt", prompt), ("negative_prompt", negative_prompt)] {
            let chars = value.chars().count();
            if chars > MAX_PROMPT_CHARS {
                return Err(invalid(format!("#/{name}: expected maxLength: {MAX_PROMPT_CHARS}, actual: {chars}")));
            }
        }
        if text(fields, "mode")?.is_some_and(|mode| mode != "text-to-image") || fields.contains_key("image") {
            return Err(invalid("#/mode: this stand-in offers text-to-image only".into()));
        }
        if fields.contains_key("strength") {
            return Err(invalid("#/strength: only for image-to-image".into()));
        }
        let aspect_ratio = one_of(fields, "aspect_ratio", &ASPECT_RATIOS)?.unwrap_or("1:1");
        let output_format = match one_of(fields, "output_format", model.output_formats())? {
            Some("jpeg" | "JPEG") => OutputFormat::Jpeg,
            Some("webp") => OutputFormat::Webp,
            _ => OutputFormat::Png,
        };
        let (width, height) = model.size(aspect_ratio);
        Ok(Self {
            prompt: prompt.to_owned(),
            negative_prompt: negative_prompt.to_owned(),
            width,
            height,
            output_format,
            seed: seed(fields, model.max_seed())?,
        })
    }

    /// Replaces seed 0 by one that is drawn, as the models do.
    pub(crate) fn with_seed_drawn(mut self) -> Self {
        if self.seed == 0 {
            self.seed = rand::random_range(1..=u32::MAX - 1);
        }
        self
    }

    /// Returns what the picture follows from: the same model, prompts and seed give the same number.
    pub(crate) fn picture_key(&self, model_id: &str) -> u64 {
        let mut hash = Sha256::new();
        for part in [model_id, &self.prompt, &self.negative_prompt] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(self.seed.to_be_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        u64::from_be_bytes(std::array::from_fn(|index| digest[index]))
    }
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Exception> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Exception::invalid(&format!("#/{name}: expected type: String"))),
    }
}

fn one_of<'a>(fields: &'a Map<String, Value>, name: &str, known: &[&str]) -> Result<Option<&'a str>, Exception> {
    let given = text(fields, name)?;
    match given {
        Some(value) if !known.contains(&value) => {
            let defect = format!("#/{name}: {value} is not a valid enum value, expected one of {}", known.join(", "));
            Err(Exception::invalid(&defect))
        }
        _ => Ok(given),
    }
}

fn seed(fields: &Map<String, Value>, max: u64) -> Result<u32, Exception> {
    let Some(value) = fields.get("seed") else { return Ok(0) };
    let within = value.as_u64().filter(|seed| *seed <= max).and_then(|seed| u32::try_from(seed).ok());
    within.ok_or_else(|| Exception::invalid(&format!("#/seed: {value} is not an integer between 0 and {max}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_are_those_of_the_documents() {
        let core = InvokeRequest::parse(Model::Core, &json!({"prompt": "a"})).unwrap();
        assert_eq!((core.width, core.height, core.output_format, core.seed), (1536, 1536, OutputFormat::Png, 0));
        let sd35 = InvokeRequest::parse(Model::Sd35Large, &json!({"prompt": "a", "mode": "text-to-image"})).unwrap();
        assert_eq!((sd35.width, sd35.height), (1024, 1024));
    }

    #[test]
    fn every_ratio_has_a_size_of_that_ratio_within_bounds() {
        for model in [Model::Core, Model::Ultra, Model::Sd35Large] {
            for ratio in ASPECT_RATIOS {
                let (width, height) = model.size(ratio);
                let (across, down) = ratio.split_once(':').unwrap();
                let wanted = across.parse::<f64>().unwrap() / down.parse::<f64>().unwrap();
                let found = f64::from(width) / f64::from(height);
                assert!((found / wanted - 1.0).abs() < 0.05, "{ratio} {width}x{height}");
                assert!((640..=1536).contains(&width) && (640..=1536).contains(&height));
            }
        }
    }

    #[test]
    fn seeds_are_drawn_only_when_zero_and_the_key_covers_everything() {
        let parse = |body| InvokeRequest::parse(Model::Core, &body).unwrap();
        assert_eq!(parse(json!({"prompt": "a", "seed": 7})).with_seed_drawn().seed, 7);
        assert_ne!(parse(json!({"prompt": "a"})).with_seed_drawn().seed, 0);
        let keys = [
            parse(json!({"prompt": "a", "seed": 7})).picture_key("m"),
            parse(json!({"prompt": "a", "seed": 8})).picture_key("m"),
            parse(json!({"prompt": "b", "seed": 7})).picture_key("m"),
            parse(json!({"prompt": "a", "negative_prompt": "x", "seed": 7})).picture_key("m"),
            parse(json!({"prompt": "a", "seed": 7})).picture_key("n"),
        ];
        assert_eq!(keys.iter().collect::<std::collections::HashSet<_>>().len(), keys.len());
        assert_eq!(keys[0], parse(json!({"prompt": "a", "seed": 7})).picture_key("m"));
    }
}
