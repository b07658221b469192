//! `Scenario`: how many users of which kind, for how long.

use std::time::Duration;

use crate::users::UserKind;

/// A load with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scenario {
    pub name: &'static str,
    /// What it is for, in a sentence.
    pub about: &'static str,
    pub kind: UserKind,
    pub users: usize,
    /// From the first user to the last new task.
    pub duration: Duration,
    /// Until all users are there, part of the duration.
    pub ramp: Duration,
    /// Pictures made before the clock starts, for students to look at.
    pub pictures: usize,
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// All scenarios; users and times of the first four are those of the document that this system was first described in.
pub const ALL: [Scenario; 7] = [
    Scenario {
        name: "baseline",
        about: "What an ordinary lesson looks like: the numbers to compare others with.",
        kind: UserKind::ImageLoadTest,
        users: 10,
        duration: minutes(5),
        ramp: Duration::from_secs(10),
        pictures: 5,
    },
    Scenario {
        name: "stress",
        about: "Five times the baseline: does it scale, and what gives first.",
        kind: UserKind::ImageLoadTest,
        users: 50,
        duration: minutes(10),
        ramp: Duration::from_secs(50),
        pictures: 5,
    },
    Scenario {
        name: "cache",
        about: "The same twenty pictures again and again: what the CDN keeps from the bucket.",
        kind: UserKind::CacheTestUser,
        users: 30,
        duration: minutes(10),
        ramp: Duration::from_secs(15),
        pictures: 20,
    },
    Scenario {
        name: "heavy",
        about: "Many submissions and little reading: fills the queue, which is what starts workers.",
        kind: UserKind::ImageHeavyUser,
        users: 20,
        duration: minutes(15),
        ramp: Duration::from_secs(10),
        pictures: 0,
    },
    Scenario {
        name: "spike",
        about: "From nobody to everybody within a second, as when a school day begins.",
        kind: UserKind::ImageLoadTest,
        users: 50,
        duration: minutes(3),
        ramp: Duration::from_secs(1),
        pictures: 5,
    },
    Scenario {
        name: "soak",
        about: "The baseline for hours: what leaks, fills up or expires.",
        kind: UserKind::ImageLoadTest,
        users: 10,
        duration: minutes(240),
        ramp: Duration::from_secs(10),
        pictures: 5,
    },
    Scenario {
        name: "capacity",
        about: "One step of `loadtest capacity`: jobs at a fixed rate.",
        kind: UserKind::ImageHeavyUser,
        users: 20,
        duration: minutes(1),
        ramp: Duration::from_secs(1),
        pictures: 0,
    },
];

/// What `all` stands for.
pub const THE_FOUR: [&str; 4] = ["baseline", "stress", "cache", "heavy"];
/// What `loadtest run` takes.
pub const RUNNABLE: [&str; 7] = ["baseline", "stress", "cache", "heavy", "spike", "soak", "all"];

impl Scenario {
    /// Returns the scenario of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|scenario| scenario.name == name)
    }

    /// Returns all names.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        ALL.iter().map(|scenario| scenario.name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_are_as_they_were_first_written_down() {
        let expected = [("baseline", 10, 5), ("stress", 50, 10), ("cache", 30, 10), ("heavy", 20, 15)];
        for (name, users, length) in expected {
            let scenario = Scenario::named(name).unwrap();
            assert_eq!((scenario.users, scenario.duration), (users, minutes(length)), "{name}");
        }
        assert_eq!(THE_FOUR.map(|name| Scenario::named(name).is_some()), [true; 4]);
        assert!(RUNNABLE.iter().all(|name| *name == "all" || Scenario::named(name).is_some()));
    }

    #[test]
    fn students_have_something_to_look_at() {
        for scenario in ALL {
            let looks = scenario.kind.tasks().iter().any(|(task, _)| *task == crate::users::Task::ViewAssignment);
            assert_eq!(looks, scenario.pictures > 0, "{}", scenario.name);
        }
    }
}
