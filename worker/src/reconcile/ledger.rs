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
        ledger.forget_what_cannot_be(now, reconciler.horizon(now));
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

    /// Begins anew with what no pass can have written by a clock near this one. Believed, a lease without an end would stop
    /// every pass, and records before a moment that has not come would never be read.
    fn forget_what_cannot_be(&mut self, now: Timestamp, horizon: Timestamp) {
        let after = |start: Timestamp| start.saturating_add(2 * LEASE).expect("a duration, not a calendar span");
        let key = ledger_key();
        if self.until > after(now) {
            tracing::warn!(key, holder = self.holder, until = %self.until, "a lease that long is nobody's: taking it");
            self.until = Timestamp::UNIX_EPOCH;
        }
        if let Some(began_at) = self.began_at.filter(|began_at| *began_at > after(now)) {
            tracing::warn!(key, %began_at, "the sweep under way begins in the future: beginning it anew");
            (self.after, self.began_at, self.is_incomplete) = (None, None, false);
        }
        if let Some(judged_before) = self.judged_before.filter(|judged_before| *judged_before > after(horizon)) {
            tracing::warn!(key, %judged_before, "no sweep can have judged that far: judging all records again");
            self.judged_before = None;
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
