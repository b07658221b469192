//! `SignInLimits`: how often one address, and one account, may try to sign in.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::secret;

/// Tries for one account: five at once, then one every 12 s. A password of 12 characters outlasts that.
const PER_ACCOUNT: NonZeroU32 = NonZeroU32::new(5).expect("not zero");
/// Tries from one address: a class of 40 signs in within a minute behind one router.
const PER_ADDRESS: NonZeroU32 = NonZeroU32::new(60).expect("not zero");

/// The limits. They forget an account once it could try at full speed again.
#[derive(Debug)]
pub struct SignInLimits {
    accounts: DefaultKeyedRateLimiter<String>,
    addresses: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
}

impl Default for SignInLimits {
    fn default() -> Self {
        Self {
            accounts: RateLimiter::keyed(Quota::per_minute(PER_ACCOUNT)),
            addresses: RateLimiter::keyed(Quota::per_minute(PER_ADDRESS)),
            clock: DefaultClock::default(),
        }
    }
}

impl SignInLimits {
    /// Counts one try for an account, named as it is compared.
    ///
    /// # Errors
    /// How long to wait, when there were too many.
    pub fn check(&self, account: &str, address: IpAddr) -> Result<(), Duration> {
        let wait = |until: governor::NotUntil<_>| until.wait_time_from(self.clock.now());
        self.addresses.check_key(&address).map_err(wait)?;
        // What somebody writes into the form may be long; its hash is not.
        self.accounts.check_key(&secret::fingerprint(std::iter::once(account))).map_err(wait)
    }

    /// Forgets who has not tried for a while.
    pub fn tidy(&self) {
        self.accounts.retain_recent();
        self.addresses.retain_recent();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_account_is_closed_for_a_while_and_others_are_not() {
        let limits = SignInLimits::default();
        let address = |n| IpAddr::from(Ipv4Addr::new(10, 0, 0, n));
        for n in 0..5 {
            assert!(limits.check("anna@school.example", address(n)).is_ok());
        }
        let wait = limits.check("anna@school.example", address(9)).unwrap_err();
        assert!(wait <= Duration::from_secs(12), "{wait:?}");
        assert!(limits.check("ben@school.example", address(9)).is_ok());
    }

    #[test]
    fn an_address_is_closed_for_a_while_whatever_the_account() {
        let limits = SignInLimits::default();
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        let tries = (0..100).take_while(|n| limits.check(&format!("{n}@school.example"), address).is_ok()).count();
        assert!((60..=62).contains(&tries), "{tries}");
    }
}
