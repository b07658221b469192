//! `ScriptedGenerator`: answers by script and counts what was paid for.

use std::collections::{HashMap, VecDeque};
use std::io::Cursor;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use image::{ImageFormat, RgbImage};
use worker::error::{JobError, Kind};
use worker::generate::{GenerateRequest, Generator, SourceImage};

/// One answer.
#[derive(Debug, Clone)]
pub enum Answer {
    Picture,
    /// Paid for, and not a picture.
    Garbage,
    Fail(JobError),
    Panic,
    /// Paid for, and nobody ever hears of it.
    Stall,
}

#[derive(Default)]
pub struct ScriptedGenerator {
    name: Option<&'static str>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    script: HashMap<String, VecDeque<Answer>>,
    for_all: Option<Answer>,
    latency: Duration,
    paid: HashMap<String, usize>,
    calls: usize,
    in_flight: usize,
    most_in_flight: usize,
    seeds: Vec<u32>,
}

impl ScriptedGenerator {
    /// Makes a model of this id; the default one is `scripted`.
    pub fn named(name: &'static str) -> Self {
        Self { name: Some(name), ..Self::default() }
    }

    /// Answers calls for `prompt` in this order, then with pictures.
    pub fn script(&self, prompt: &str, answers: impl IntoIterator<Item = Answer>) {
        self.state().script.entry(prompt.to_owned()).or_default().extend(answers);
    }

    /// Answers every call like this until told otherwise.
    pub fn always(&self, answer: Option<Answer>) {
        self.state().for_all = answer;
    }

    pub fn take(&self, latency: Duration) {
        self.state().latency = latency;
    }

    pub fn paid(&self, prompt: &str) -> usize {
        self.state().paid.get(prompt).copied().unwrap_or_default()
    }

    pub fn paid_in_all(&self) -> usize {
        self.state().paid.values().sum()
    }

    pub fn calls(&self) -> usize {
        self.state().calls
    }

    pub fn in_flight(&self) -> usize {
        self.state().in_flight
    }

    pub fn most_in_flight(&self) -> usize {
        self.state().most_in_flight
    }

    pub fn seeds(&self) -> Vec<u32> {
        self.state().seeds.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

struct InFlight<'a>(&'a ScriptedGenerator);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.state().in_flight -= 1;
    }
}

#[async_trait]
impl Generator for ScriptedGenerator {
    async fn generate(&self, request: &GenerateRequest) -> Result<SourceImage, JobError> {
        let (answer, latency) = {
            let mut state = self.state();
            state.calls += 1;
            state.in_flight += 1;
            state.most_in_flight = state.most_in_flight.max(state.in_flight);
            state.seeds.push(request.seed);
            let scripted = state.script.get_mut(&request.prompt).and_then(VecDeque::pop_front);
            let answer = scripted.or_else(|| state.for_all.clone()).unwrap_or(Answer::Picture);
            if matches!(answer, Answer::Picture | Answer::Garbage | Answer::Stall) {
                *state.paid.entry(request.prompt.clone()).or_default() += 1;
            }
            (answer, state.latency)
        };
        let _in_flight = InFlight(self);
        tokio::time::sleep(latency).await;
        let bytes = match answer {
            Answer::Picture => picture(request.seed),
            Answer::Garbage => Bytes::from_static(b"not a picture"),
            Answer::Fail(error) => return Err(error),
            Answer::Panic => panic!("scripted panic"),
            Answer::Stall => {
                std::future::pending::<()>().await;
                return Err(JobError::new(Kind::ModelTimedOut, "never"));
            }
        };
        Ok(SourceImage { bytes, seed: request.seed })
    }

    fn model_id(&self) -> &str {
        self.name.unwrap_or("scripted")
    }

    fn max_seed(&self) -> u32 {
        u32::MAX
    }
}

/// A small PNG, another one for each seed.
pub fn picture(seed: u32) -> Bytes {
    let [r, g, b, _] = seed.to_le_bytes();
    let image = RgbImage::from_fn(64, 64, |x, y| {
        let [x, y, ..] = [x.to_le_bytes()[0], y.to_le_bytes()[0]];
        image::Rgb([r.wrapping_add(x), g.wrapping_add(y), b])
    });
    let mut png = vec![];
    image.write_to(&mut Cursor::new(&mut png), ImageFormat::Png).unwrap();
    png.into()
}
