//! `Ledger`: what the reconciler remembers between passes, and its lease, in one object with conditional writes.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Reconciler;
use crate::error::JobError;
use crate::store::{ETag, StoreError};

/// Longer than a pass takes. One that takes longer may meet another, which does no harm.
const LEASE: Duration = Duration::from_secs(600);

/// State of the reconciler. Losing it costs one sweep over all records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Who is at it, or was last.
    pub holder: String,
    /// Until when nobody else begins.
    pub until: Timestamp,
    /// The last key of the slice before; none at the beginning of a sweep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// When the sweep under way began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_at: Option<Timestamp>,
    /// Whether it has met a record that could not be read.
    #[serde(default)]
    pub is_incomplete: bool,
    /// Records last written before this have been judged by a complete sweep, and are not read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged_before: Option<Timestamp>,
}

/// Returns the key of the ledger.
pub fn ledger_key() -> &'static str {
    "control/reconcile.json"
}

impl Ledger {
    /// Takes the lease. The inner error is its holder's name, when there is one.
    pub(super) async fn take(reconciler: &Reconciler) -> Result<Result<(Self, ETag), String>, JobError> {
        let now = (reconciler.clock)();
        let (mut ledger, found) = match reconciler.shelf.read_control(ledger_key()).await? {
            None => (Self::default(), None),
            Some((body, version)) => {
                let ledger = serde_json::from_slice(&body).unwrap_or_else(|_| {
                    tracing::warn!(key = ledger_key(), "what is there cannot be read: beginning anew");
                    Self::default()
                });
                (ledger, Some(version))
            }
        };
        if ledger.until > now {
            return Ok(Err(ledger.holder));
        }
        ledger.holder.clone_from(&reconciler.name);
        ledger.until = now.saturating_add(LEASE).expect("a duration, not a calendar span");
        match reconciler.shelf.write_control(ledger_key(), ledger.body(), found.as_ref()).await {
            Ok(version) => Ok(Ok((ledger, version))),
            Err(StoreError::Conflict) => Ok(Err("another one that was faster".to_owned())),
            Err(StoreError::Failed(error)) => Err(error),
        }
    }

    /// Writes down how far the sweep is, and gives the lease up.
    pub(super) async fn give_back(mut self, reconciler: &Reconciler, taken: &ETag) {
        self.until = (reconciler.clock)();
        if let Err(error) = reconciler.shelf.write_control(ledger_key(), self.body(), Some(taken)).await {
            tracing::warn!(%error, "the ledger could not be written: this slice is looked at again");
        }
    }

    fn body(&self) -> Bytes {
        serde_json::to_vec(self).expect("a ledger always serialises").into()
    }
}
