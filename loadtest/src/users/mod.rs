//! The virtual users: `ImageLoadTest`, `ImageHeavyUser`, `CacheTestUser`, and what each of them does.

mod arrivals;
mod gallery;
mod portal;
mod prompts;
mod session;

use std::ops::Range;

use serde::{Deserialize, Serialize};

pub use arrivals::{Arrivals, Spread};
pub use gallery::Gallery;
pub use portal::{Portal, Waiting};
pub use prompts::{Asked, Prompts};
pub use session::{Session, Stops, Traits};

/// A kind of user. The names are those of the document that this system was first described in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserKind {
    /// A class: its teacher creates assignments with images, its students look at them.
    ImageLoadTest,
    /// A teacher who creates several images at once and hardly looks at them: fills the queue, starts workers.
    ImageHeavyUser,
    /// Students who look at the same images again and again.
    CacheTestUser,
}

/// One thing that a user does, from its begin to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// Submits one job, waits for its picture and downloads it.
    CreateAssignment,
    /// Submits several jobs at the same time, waits for all pictures and downloads them.
    CreateMany,
    /// Downloads a picture that was made before.
    ViewAssignment,
}

impl UserKind {
    /// Returns what the user does, and how often each compared with the others.
    ///
    /// A picture is looked at five times for each one that is created: few, for a class, so that the hit ratio is not flattered.
    #[must_use]
    pub fn tasks(self) -> &'static [(Task, usize)] {
        match self {
            Self::ImageLoadTest => &[(Task::CreateAssignment, 1), (Task::ViewAssignment, 5)],
            Self::ImageHeavyUser => &[(Task::CreateMany, 1)],
            Self::CacheTestUser => &[(Task::ViewAssignment, 1)],
        }
    }

    /// Returns how long a closed user thinks between two tasks, in milliseconds; each time something else in between.
    #[must_use]
    pub fn think_millis(self) -> Range<u64> {
        match self {
            Self::ImageLoadTest => 1000..5000,
            Self::ImageHeavyUser => 500..1500,
            Self::CacheTestUser => 200..1000,
        }
    }

    /// Returns the word used in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ImageLoadTest => "ImageLoadTest",
            Self::ImageHeavyUser => "ImageHeavyUser",
            Self::CacheTestUser => "CacheTestUser",
        }
    }
}

impl Task {
    /// Returns the word used in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateAssignment => "create assignment",
            Self::CreateMany => "create many",
            Self::ViewAssignment => "view assignment",
        }
    }
}
