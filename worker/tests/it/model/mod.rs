//! A model of claim, lease and redelivery, checked in every order of steps: what a guarantee needs, and that it needs it.

mod protocol;
mod state;

use stateright::{Checker, Expectation, Model};

use protocol::{Protection, Protocol};

/// Two workers, one message handed over three times and once as a copy, one crash, one pause longer than the lease, one
/// call that fails.
const ONE_MESSAGE: Protocol =
    Protocol { messages: 1, max_receive_count: 3, copies: 1, crashes: 1, pauses: 1, faults: 1, without: None };

/// Two workers, the same job in two messages, as a repeated `Idempotency-Key` sends it, each handed over twice; one crash
/// and one pause.
const TWO_MESSAGES: Protocol =
    Protocol { messages: 2, max_receive_count: 2, copies: 0, crashes: 1, pauses: 1, faults: 0, without: None };

/// As the first, but for two pauses: more than is promised.
const TWO_PAUSES: Protocol =
    Protocol { messages: 1, max_receive_count: 5, copies: 0, crashes: 1, pauses: 2, faults: 0, without: None };

fn holds(protocol: Protocol) {
    let checker = protocol.checker().threads(1).spawn_bfs().join();
    println!("{} states, {} steps deep", checker.unique_state_count(), checker.max_depth());
    assert!(checker.is_done());
    checker.assert_properties();
}

#[test]
fn one_message_keeps_the_invariants_in_every_order() {
    holds(ONE_MESSAGE);
}

#[test]
fn two_messages_of_one_job_keep_the_invariants_in_every_order() {
    holds(TWO_MESSAGES);
}

/// The limit of what conditional writes of records can do: a worker that renews its claim, is paused before it writes its
/// picture over an older one, and goes on after two others have had the job, changes the picture that the record tells of.
/// It takes a crash, two pauses, and two pictures that were both paid for; and the URL still shows one of them.
#[test]
fn after_a_crash_and_two_pauses_the_url_may_show_the_other_paid_picture_and_nothing_worse_happens() {
    let checker = TWO_PAUSES.checker().threads(1).spawn_bfs().join();
    assert!(checker.is_done());
    let path = checker.assert_any_discovery("url_after_object");
    assert!(path.last_state().shows_a_paid_picture(), "{path}");
    for property in TWO_PAUSES.properties() {
        if property.name != "url_after_object" && property.expectation != Expectation::Sometimes {
            checker.assert_no_discovery(property.name);
        }
    }
}

#[test]
fn without_a_protection_the_invariant_that_needs_it_breaks() {
    for (without, invariant) in [
        (Protection::TakeOverRule, "one_call_at_a_time"),
        (Protection::ConditionalWrite, "one_call_at_a_time"),
        (Protection::Checkpoint, "paid_once"),
        (Protection::LeaseExtension, "one_call_at_a_time"),
        (Protection::ImageBeforeRecord, "url_after_object"),
        (Protection::RecordBeforeDelete, "deleted_only_when_final"),
        (Protection::Redelivery, "job_ends"),
    ] {
        let broken = Protocol { without: Some(without), ..ONE_MESSAGE };
        let checker = broken.checker().threads(1).spawn_bfs().join();
        let path = checker.discovery(invariant);
        assert!(path.is_some(), "without {without:?}, {invariant} still holds: the model does not bite");
    }
}
