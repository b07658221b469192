//! Hostile messages, answers, pictures and ids: each is read or refused, and nothing else happens. `cargo dev fuzz` runs
//! them for longer.

use std::path::Path;

use devstack::fuzz::{Recipe, Target, TargetName};
use job::{IdKeys, Job, JobId};
use worker::error::Kind;
use worker::generate::{GenerateRequest, parse_answer};
use worker::render::decode::decode;

const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it");
/// As in the settings: four times the largest picture of a model.
const MAX_PIXELS: u64 = 4 * 2048 * 2048;

/// Runs a target from its corpus on, until its time is over.
macro_rules! fuzz {
    ($name:expr, $tests:expr) => {{
        let target = Target::start($name, Path::new(TESTS), $tests);
        let time = devstack::fuzz::time();
        bolero::check!().with_type::<Recipe>().with_test_time(time).for_each(|recipe| target.cook(recipe));
        target.end();
    }};
}

#[test]
fn message_decode() {
    fuzz!(TargetName::MessageDecode, |input: &[u8]| {
        let body = String::from_utf8_lossy(input);
        match Job::decode(&body) {
            // Whatever was read can be sent again, and is the same job then.
            Ok(job) => assert_eq!(Job::decode(&job.encode()).unwrap(), job),
            Err(error) => assert!(error.to_string().len() < 200, "it quotes the body: {error}"),
        }
    });
}

#[test]
fn answer_parse() {
    let prompt = "a very private fox";
    fuzz!(TargetName::AnswerParse, |input: &[u8]| {
        let request = GenerateRequest { prompt: prompt.to_owned(), negative_prompt: Some("rain".to_owned()), seed: 7 };
        match parse_answer(input, &request) {
            Ok(image) => assert!(!image.bytes.is_empty()),
            Err(error) => {
                assert!(matches!(error.kind, Kind::ContentFiltered | Kind::ModelFailed | Kind::ModelAnswerMalformed));
                // 200 characters of the model's own, of up to four bytes.
                assert!(error.detail.len() < 1000, "{} bytes of detail", error.detail.len());
                assert!(!error.detail.contains(prompt), "{}", error.detail);
            }
        }
    });
}

#[test]
fn image_decode() {
    fuzz!(TargetName::ImageDecode, |input: &[u8]| {
        if let Ok(pixels) = decode(input, MAX_PIXELS) {
            let count = u64::from(pixels.width) * u64::from(pixels.height);
            assert!((1..=MAX_PIXELS).contains(&count), "{} x {}", pixels.width, pixels.height);
            assert_eq!(pixels.rgb.len() as u64, 3 * count);
        }
    });
}

#[test]
fn job_id_parse() {
    let keys: IdKeys = "test-secret-test-secret-test-secret".parse().unwrap();
    let tenant = "north".parse().unwrap();
    fuzz!(TargetName::JobIdParse, |input: &[u8]| {
        let text = String::from_utf8_lossy(input);
        if let Ok(id) = text.parse::<JobId>() {
            // One text for each id, and so one object key.
            assert_eq!(id.to_string(), text);
            assert!(!keys.verify(&id, &tenant), "{id} was never issued");
            let _time = id.issued_at();
        }
        if let Ok(json) = serde_json::from_slice::<JobId>(input) {
            assert_eq!(serde_json::to_value(json).unwrap(), json.to_string());
        }
    });
}
