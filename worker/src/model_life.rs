//! `ModelLife`: whether the model is active, legacy or at its end, read at the start and every hour, and what follows from it.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::circuit::Circuit;
use crate::error::{JobError, Kind};
use crate::metrics::{self, LifeState};

/// How often it is read. A model is legacy for half a year before its end.
pub const READ_EVERY: Duration = Duration::from_secs(3600);

/// Where a model is in its life, as its provider has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelLife {
    /// With the end that has been announced, if one has.
    Active { ends_at: Option<Timestamp> },
    /// New customers do not get it any more, and it will end.
    Legacy { ends_at: Option<Timestamp> },
    /// The provider does not know it, or no longer.
    Missing,
}

/// What [`ModelLife`] comes to at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Active,
    Legacy {
        ends_at: Option<Timestamp>,
    },
    /// Its end has passed: no call of it will be answered.
    Ended {
        at: Timestamp,
    },
    Missing,
}

/// The port to whoever knows where the model is in its life.
#[async_trait]
pub trait ModelRegister: Send + Sync + 'static {
    /// Reads it.
    ///
    /// # Errors
    /// Why it cannot be read, for the log. That is no fault of the model: work goes on.
    async fn life(&self) -> Result<ModelLife, String>;
}

impl ModelLife {
    /// Returns what it comes to at `now`.
    pub fn at(self, now: Timestamp) -> Standing {
        match self {
            Self::Active { ends_at: Some(at) } | Self::Legacy { ends_at: Some(at) } if at <= now => {
                Standing::Ended { at }
            }
            Self::Active { .. } => Standing::Active,
            Self::Legacy { ends_at } => Standing::Legacy { ends_at },
            Self::Missing => Standing::Missing,
        }
    }
}

impl Standing {
    fn state(self) -> LifeState {
        match self {
            Self::Active => LifeState::Active,
            Self::Legacy { .. } => LifeState::Legacy,
            Self::Ended { .. } | Self::Missing => LifeState::Ended,
        }
    }

    /// Tells log and metrics of the model's new standing, and opens the `circuit` when it can no longer be called: jobs are
    /// held before the first of them has found out. Should a call be answered all the same, the circuit closes as ever.
    pub fn tell(self, model_id: &str, circuit: &Circuit) {
        metrics::model_life(self.state());
        match self {
            Self::Active => tracing::info!(model = model_id, "the model is active"),
            Self::Legacy { ends_at } => {
                let ends_at = ends_at.map(|at| at.to_string());
                tracing::warn!(model = model_id, ends_at, "the model is legacy: choose another before its end");
            }
            Self::Ended { at } => circuit.trip(&JobError::new(
                Kind::ModelRetired,
                format!("{model_id} has reached its end of life at {at}, says the list of models"),
            )),
            Self::Missing => {
                circuit.trip(&JobError::new(Kind::ModelNotFound, format!("{model_id} is not in the list of models")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use service::readiness::Readiness;

    use super::*;

    #[test]
    fn a_date_that_has_passed_is_the_end_whatever_the_state_says() {
        let (before, at) = ("2027-02-28T23:59:59Z".parse().unwrap(), "2027-03-01T00:00:00Z".parse().unwrap());
        let dated = ModelLife::Legacy { ends_at: Some(at) };
        assert_eq!(dated.at(before), Standing::Legacy { ends_at: Some(at) });
        assert_eq!(dated.at(at), Standing::Ended { at });
        assert_eq!(ModelLife::Active { ends_at: Some(at) }.at(at), Standing::Ended { at });
        assert_eq!(ModelLife::Active { ends_at: Some(at) }.at(before), Standing::Active);
        assert_eq!(ModelLife::Legacy { ends_at: None }.at(at), Standing::Legacy { ends_at: None });
    }

    #[tokio::test(start_paused = true)]
    async fn a_legacy_model_is_worked_with_and_one_at_its_end_is_not() {
        let readiness = Readiness::default();
        let circuit = Circuit::new(readiness.clone());
        Standing::Active.tell("m", &circuit);
        Standing::Legacy { ends_at: None }.tell("m", &circuit);
        assert!(readiness.is_ready() && !circuit.is_open());
        Standing::Ended { at: Timestamp::UNIX_EPOCH }.tell("m", &circuit);
        assert!(readiness.reasons()["circuit"].starts_with("model_retired: m has reached its end of life"));
        // A call that is answered all the same proves the list wrong.
        circuit.admit().await.passed();
        assert!(!circuit.is_open() && readiness.is_ready());
        Standing::Missing.tell("m", &circuit);
        assert!(readiness.reasons()["circuit"].starts_with("model_not_found: "));
    }
}
