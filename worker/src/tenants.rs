//! `Tenants`: each tenant's share of this worker's interactive lane.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use job::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A tenant may have so many deliveries here for each that may run: as many rounds wait under their leases. With the
/// default fleet of three workers of four slots that is 27, just below the 30 in flight from which SQS itself calls a
/// tenant noisy. What comes beyond is no longer somebody at a screen, but a batch that was sent one by one.
const PRESENT_PER_SLOT: usize = 3;

/// Who is here. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tenants {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Deliveries of one tenant that run at a time.
    slots: usize,
    shares: Mutex<HashMap<TenantId, Share>>,
}

#[derive(Debug)]
struct Share {
    /// Deliveries that run or wait for their turn.
    present: usize,
    turns: Arc<Semaphore>,
}

impl Tenants {
    /// Lets each tenant run `slots` deliveries at a time.
    pub fn new(slots: usize) -> Self {
        Self { shared: Arc::new(Shared { slots, shares: Mutex::default() }) }
    }

    /// Lets a delivery in, or returns nothing when its tenant has too many here already.
    pub fn enter(&self, tenant: &TenantId) -> Option<Presence> {
        self.let_in(tenant, self.shared.slots * PRESENT_PER_SLOT)
    }

    /// Lets a delivery in that has to be done here, whatever else its tenant has.
    pub fn insist(&self, tenant: &TenantId) -> Presence {
        self.let_in(tenant, usize::MAX).expect("nobody has so many")
    }

    fn let_in(&self, tenant: &TenantId, most: usize) -> Option<Presence> {
        let mut shares = self.shared.shares();
        let new = || Share { present: 0, turns: Arc::new(Semaphore::new(self.shared.slots)) };
        let share = shares.entry(tenant.clone()).or_insert_with(new);
        if share.present >= most {
            return None;
        }
        share.present += 1;
        Some(Presence { shared: Arc::clone(&self.shared), tenant: tenant.clone(), turns: Arc::clone(&share.turns) })
    }
}

impl Shared {
    fn shares(&self) -> MutexGuard<'_, HashMap<TenantId, Share>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A delivery that is here, until dropped.
#[derive(Debug)]
pub struct Presence {
    shared: Arc<Shared>,
    tenant: TenantId,
    turns: Arc<Semaphore>,
}

/// The right to take a slot, until dropped.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
    _presence: Presence,
}

impl Presence {
    /// Takes its turn if it need not wait for one.
    ///
    /// # Errors
    /// Itself, to wait with.
    pub fn at_once(self) -> Result<Turn, Self> {
        match Arc::clone(&self.turns).try_acquire_owned() {
            Ok(permit) => Ok(Turn { _permit: permit, _presence: self }),
            Err(_) => Err(self),
        }
    }

    /// Waits until it is this delivery's turn, in order of arrival. Safe to drop while it waits.
    pub async fn turn(self) -> Turn {
        let permit = Arc::clone(&self.turns).acquire_owned().await.expect("the semaphore is never closed");
        Turn { _permit: permit, _presence: self }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut shares = self.shared.shares();
        let Some(share) = shares.get_mut(&self.tenant) else { return };
        share.present -= 1;
        if share.present == 0 {
            shares.remove(&self.tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn some_run_some_wait_and_the_rest_is_not_let_in() {
        let tenants = Tenants::new(2);
        let [north, south]: [TenantId; 2] = ["north", "south"].map(|name| name.parse().unwrap());
        let mut running: Vec<Turn> =
            (0..2).map(|_| tenants.enter(&north).unwrap().at_once().expect("a free turn")).collect();
        let waiting = (0..4).map(|_| tenants.enter(&north).unwrap().at_once().expect_err("no free turn"));
        let waiting: Vec<Presence> = waiting.collect();
        assert!(tenants.enter(&north).is_none());
        assert!(tenants.enter(&south).unwrap().at_once().is_ok(), "another tenant is none the worse");
        let insisting = tenants.insist(&north);
        let mut turns: Vec<_> = waiting.into_iter().map(|presence| Box::pin(presence.turn())).collect();
        for turn in &mut turns {
            assert!(futures::poll!(turn).is_pending());
        }
        drop(running.pop());
        assert!(futures::poll!(&mut turns[0]).is_ready(), "in order of arrival");
        drop((running, turns, insisting));
        assert!(tenants.shared.shares().is_empty(), "who has gone is forgotten");
    }
}
