//! `Models`: the model that is asked, and another one that is asked while the first is out of order.

use std::sync::Arc;

use job::JobId;

use crate::circuit::{Circuit, Pass};
use crate::error::{Class, JobError, Kind};
use crate::generate::Generator;
use crate::lane::Lane;
use crate::limiter::Limiter;
use crate::quota::Governor;

/// One model, with a limiter of its own: the quotas of two are two.
#[derive(Clone)]
pub struct Model {
    pub generator: Arc<dyn Generator>,
    pub limiter: Arc<Limiter>,
}

/// What is asked for pictures. Shared by all deliveries.
#[derive(Clone)]
pub struct Models {
    first: Model,
    fallback: Option<Fallback>,
}

#[derive(Clone)]
struct Fallback {
    model: Model,
    /// Of the first: while it is open the other is asked, but for one call at a time that looks whether the fault has ended.
    circuit: Circuit,
}

/// The model to ask for one picture. To be told what came of it.
pub struct Choice {
    pub model: Model,
    /// Of the first model's circuit; none when there is no choice, or the fallback was chosen.
    pass: Option<Pass>,
}

impl Model {
    fn new(generator: Arc<dyn Generator>, limiter: Limiter) -> Self {
        Self { generator, limiter: Arc::new(limiter) }
    }
}

impl Models {
    /// Takes the model to ask, what shares its quota among the fleet, and the one to ask while that one is out of order: its
    /// quota is another.
    pub fn new(first: Arc<dyn Generator>, governor: Option<Governor>, fallback: Option<Arc<dyn Generator>>) -> Self {
        let fallback = fallback
            .map(|other| Fallback { model: Model::new(other, Limiter::default()), circuit: Circuit::of_first_model() });
        Self { first: Model::new(first, Limiter::governed(governor)), fallback }
    }

    /// Chooses whom to ask now.
    pub fn choose(&self) -> Choice {
        let Some(fallback) = &self.fallback else { return Choice { model: self.first.clone(), pass: None } };
        match fallback.circuit.try_admit() {
            Some(pass) => Choice { model: self.first.clone(), pass: Some(pass) },
            None => Choice { model: fallback.model.clone(), pass: None },
        }
    }

    /// Returns the circuit of the first model, if another can be asked while it is open.
    pub fn first_circuit(&self) -> Option<&Circuit> {
        self.fallback.as_ref().map(|fallback| &fallback.circuit)
    }

    /// Resolves when a further delivery of this lane would be the next to call: until then it could not start.
    pub async fn nobody_waiting(&self, lane: Lane) {
        self.first.limiter.nobody_waiting(lane).await;
        if let Some(fallback) = &self.fallback {
            fallback.model.limiter.nobody_waiting(lane).await;
        }
    }
}

impl Choice {
    /// Notes that the model has answered as a model does, with a picture or without.
    pub fn answered(self) {
        if let Some(pass) = self.pass {
            pass.passed();
        }
    }

    /// Notes that the model has failed `job`, and returns whether the other is to be asked for it at once. Never after a call
    /// that may have been paid for: then this attempt ends, as it always does, and the next one chooses again.
    pub fn failed(self, error: &JobError, job: &JobId) -> bool {
        let Some(pass) = self.pass else { return false };
        if error.class() == Class::Permanent {
            pass.passed();
            return false;
        }
        if !pass.blames_environment(error, job) {
            return false;
        }
        pass.failed(error);
        is_surely_unpaid(error.kind)
    }
}

/// An answer that says no is not charged. A time-out, a connection that broke, an answer without a picture may be.
fn is_surely_unpaid(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::AccessDenied
            | Kind::CredentialsUnavailable
            | Kind::ModelRetired
            | Kind::ModelNotFound
            | Kind::ModelSettingsRefused
            | Kind::ModelQuotaExceeded
            | Kind::ModelUnavailable
    )
}
