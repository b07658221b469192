//! Pictures: what is wanted, how far it is, and what has been made.

use job::Status;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};

use crate::accounts::Teacher;
use crate::assignments::{note_search, seed, use_form};
use crate::client::{Image, JobView};
use crate::database::{Database, now};
use crate::sessions::Scope;
use crate::style::Style;

/// How long one process has a picture to itself while it talks to the API about it. After a crash another one takes over.
const CLAIM_MS: i64 = 30_000;

/// The columns that [`picture`] reads, of a table named `p`.
macro_rules! picture_columns {
    () => {
        "p.id, p.assignment_id, p.prompt, p.style, p.alt, p.seed, p.state, p.idempotency_key, p.tries, p.next_at, \
         p.cancel_wanted, p.status_url, p.problem, p.image_url, p.image_width, p.image_height, p.thumbhash, p.version"
    };
}
pub(crate) use picture_columns;

/// How far a picture is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not yet with the API, or not known to be.
    Unsent,
    /// The API did not take the request as it is.
    Refused,
    /// What the API says.
    Job(Status),
}

impl State {
    /// Returns the word in the database and on the page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsent => "unsent",
            Self::Refused => "refused",
            Self::Job(status) => status.as_str(),
        }
    }

    /// Returns whether something is still going to happen by itself.
    pub fn is_pending(self) -> bool {
        match self {
            Self::Unsent => true,
            Self::Refused => false,
            Self::Job(status) => !status.is_final(),
        }
    }

    /// Returns whether no worker has begun with it.
    pub fn has_not_started(self) -> bool {
        matches!(self, Self::Unsent | Self::Job(Status::Queued))
    }

    fn of(word: &str) -> Option<Self> {
        let all = [Self::Unsent, Self::Refused].into_iter().chain(Status::ALL.map(Self::Job));
        all.into_iter().find(|state| state.as_str() == word)
    }
}

/// A picture of an assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    pub id: String,
    pub assignment_id: String,
    pub prompt: String,
    pub style: Style,
    pub alt: String,
    pub seed: u32,
    pub state: State,
    pub idempotency_key: String,
    pub cancel_wanted: bool,
    pub status_url: Option<String>,
    /// Why there is no new picture, in words for the person who asked for it.
    pub problem: Option<String>,
    /// The last one that was made.
    pub image: Option<Image>,
    pub version: i64,
    next_at: i64,
}

/// What a teacher wants to have changed.
#[derive(Debug, Clone)]
pub struct Revision {
    pub prompt: String,
    pub alt: String,
    pub style: Style,
    /// Made with the form: sending it twice makes one job.
    pub form_key: String,
}

impl Database {
    /// Returns an assignment's pictures in their order.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pictures(&self, assignment: &str) -> Result<Vec<Picture>, sqlx::Error> {
        let rows = sqlx::query(concat!(
            "SELECT ",
            picture_columns!(),
            " FROM pictures p WHERE p.assignment_id = $1 ORDER BY p.position"
        ));
        rows.bind(assignment).fetch_all(&self.pool).await?.iter().map(picture).collect()
    }

    /// Returns those of these pictures that are in the scope.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pictures_of(&self, scope: &Scope, ids: &[&str]) -> Result<Vec<Picture>, sqlx::Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let places: Vec<String> = (0..ids.len()).map(|n| format!("${}", n + 3)).collect();
        let sql = format!(
            "SELECT {} FROM pictures p JOIN assignments a ON a.id = p.assignment_id JOIN classes c ON c.id = a.class_id
             WHERE (c.teacher_id = $1 OR a.class_id = $2) AND p.id IN ({})",
            picture_columns!(),
            places.join(", ")
        );
        // Safe: what varies is the number of places.
        let query = sqlx::query(AssertSqlSafe(sql)).bind(&scope.teacher).bind(&scope.class);
        let query = ids.iter().fold(query, |query, id| query.bind(*id));
        query.fetch_all(&self.pool).await?.iter().map(picture).collect()
    }

    /// Changes the alternative text alone.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn set_alt(&self, picture: &Picture, alt: &str) -> Result<(), sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        let update = sqlx::query("UPDATE pictures SET alt = $1, version = version + 1 WHERE id = $2");
        update.bind(alt).bind(&picture.id).execute(&mut *tx).await?;
        note_search(&mut tx, &picture.assignment_id).await?;
        tx.commit().await
    }

    /// Asks for the picture anew, with a new seed. The second time that the same form is sent nothing happens. Returns
    /// whether it was done: not while the present one is still being made.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revise(&self, picture: &Picture, revision: &Revision) -> Result<bool, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        if use_form(&mut tx, &revision.form_key, &picture.assignment_id).await?.is_some() {
            return Ok(true);
        }
        let asked = sqlx::query("SELECT id FROM pictures WHERE idempotency_key = $1");
        if asked.bind(&revision.form_key).fetch_optional(&mut *tx).await?.is_some() {
            tx.rollback().await?;
            return Ok(true);
        }
        let revised = sqlx::query(
            "UPDATE pictures SET prompt = $1, alt = $2, style = $3, seed = $4, idempotency_key = $5, state = 'unsent',
             tries = 0, next_at = 0, cancel_wanted = 0, status_url = NULL, problem = NULL, version = version + 1
             WHERE id = $6 AND state NOT IN ('unsent', 'queued', 'generating', 'processing')",
        )
        .bind(&revision.prompt)
        .bind(&revision.alt)
        .bind(revision.style.as_str())
        .bind(seed())
        .bind(&revision.form_key)
        .bind(&picture.id)
        .execute(&mut *tx)
        .await?;
        if revised.rows_affected() == 0 {
            // The form is not used up: it may be sent again when there is a picture.
            tx.rollback().await?;
            return Ok(false);
        }
        note_search(&mut tx, &picture.assignment_id).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Withdraws the pictures of an assignment that have not started, or one of them. What was never sent ends here; the
    /// courier tells the API about the others.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn cancel(&self, assignment: &str, picture: Option<&str>) -> Result<(), sqlx::Error> {
        let picture = picture.unwrap_or_default();
        for statement in [
            "UPDATE pictures SET state = 'canceled', version = version + 1
             WHERE assignment_id = $1 AND ($2 = '' OR id = $2) AND state = 'unsent' AND tries = 0",
            "UPDATE pictures SET cancel_wanted = 1, next_at = 0, version = version + 1
             WHERE assignment_id = $1 AND ($2 = '' OR id = $2) AND state IN ('unsent', 'queued') AND cancel_wanted = 0",
        ] {
            sqlx::query(statement).bind(assignment).bind(picture).execute(&self.pool).await?;
        }
        Ok(())
    }

    /// Makes everything that is pending due at once: what the process before this one had to itself is nobody's now.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn resume_pending(&self) -> Result<u64, sqlx::Error> {
        let resumed = sqlx::query(
            "UPDATE pictures SET next_at = 0 WHERE state IN ('unsent', 'queued', 'generating', 'processing')",
        );
        Ok(resumed.execute(&self.pool).await?.rows_affected())
    }

    /// Takes what is due: unsent pictures, or those whose state has to be asked for. They are this caller's until the claim
    /// runs out or the outcome is noted.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim_due(&self, unsent: bool, limit: i64) -> Result<Vec<Picture>, sqlx::Error> {
        let due = if unsent {
            concat!(
                "SELECT ",
                picture_columns!(),
                " FROM pictures p WHERE p.state = 'unsent' AND p.next_at <= $1
                 ORDER BY p.next_at, p.assignment_id, p.position LIMIT $2"
            )
        } else {
            concat!(
                "SELECT ",
                picture_columns!(),
                " FROM pictures p WHERE p.state IN ('queued', 'generating', 'processing') AND p.next_at <= $1
                 ORDER BY p.next_at LIMIT $2"
            )
        };
        let rows = sqlx::query(due).bind(now()).bind(limit).fetch_all(&self.pool).await?;
        let mut claimed = Vec::new();
        for picture in rows.iter().map(picture) {
            let picture = picture?;
            let until = now() + CLAIM_MS;
            let taken = sqlx::query(
                "UPDATE pictures SET next_at = $1, tries = tries + 1
                 WHERE id = $2 AND next_at = $3 AND state = $4 AND idempotency_key = $5",
            )
            .bind(until)
            .bind(&picture.id)
            .bind(picture.next_at)
            .bind(picture.state.as_str())
            .bind(&picture.idempotency_key)
            .execute(&self.pool)
            .await?;
            if taken.rows_affected() == 1 {
                claimed.push(Picture { next_at: until, ..picture });
            }
        }
        Ok(claimed)
    }

    /// Returns in how many milliseconds the next picture is due, if one is pending at all.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn next_due_ms(&self) -> Result<Option<i64>, sqlx::Error> {
        let next: Option<i64> = sqlx::query(
            "SELECT MIN(next_at) AS next_at FROM pictures
             WHERE state IN ('unsent', 'queued', 'generating', 'processing')",
        )
        .fetch_one(&self.pool)
        .await?
        .try_get("next_at")?;
        Ok(next.map(|at| (at - now()).max(0)))
    }

    /// Gives a claimed picture back, due again after a while.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn postpone(&self, picture: &Picture, ms: i64) -> Result<(), sqlx::Error> {
        let update = sqlx::query("UPDATE pictures SET next_at = $1 WHERE id = $2 AND next_at = $3");
        update.bind(now() + ms).bind(&picture.id).bind(picture.next_at).execute(&self.pool).await.map(|_| ())
    }

    /// Notes that the API has taken the request.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn note_accepted(&self, picture: &Picture, status_url: &str, ask_in_ms: i64) -> Result<(), sqlx::Error> {
        // Whatever the answer says of the state: the first poll brings it, with all that belongs to it.
        let update = sqlx::query(
            "UPDATE pictures SET state = 'queued', status_url = $1, version = version + 1,
             next_at = CASE WHEN cancel_wanted = 1 THEN 0 ELSE $2 END
             WHERE id = $3 AND idempotency_key = $4 AND state = 'unsent'",
        );
        let update = update.bind(status_url).bind(now() + ask_in_ms).bind(&picture.id).bind(&picture.idempotency_key);
        update.execute(&self.pool).await.map(|_| ())
    }

    /// Notes that there will be no picture, and why.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn note_ended(&self, picture: &Picture, state: State, problem: &str) -> Result<(), sqlx::Error> {
        let update = sqlx::query(
            "UPDATE pictures SET state = $1, problem = $2, version = version + 1 WHERE id = $3 AND idempotency_key = $4",
        );
        let update = update.bind(state.as_str()).bind(problem).bind(&picture.id).bind(&picture.idempotency_key);
        update.execute(&self.pool).await.map(|_| ())
    }

    /// Notes what the API says of the job.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn note_view(&self, picture: &Picture, view: &JobView, ask_in_ms: i64) -> Result<(), sqlx::Error> {
        let state = view.status.as_str();
        let changed = i64::from(picture.state != State::Job(view.status));
        let problem = view.error.as_ref().map(|error| error.title.clone());
        let (pictures, noted) = match &view.image {
            Some(image) => {
                let update = sqlx::query(
                    "UPDATE pictures SET state = $1, problem = $2, next_at = $3, version = version + $4,
                     image_url = $7, image_width = $8, image_height = $9, thumbhash = $10
                     WHERE id = $5 AND idempotency_key = $6",
                );
                (update, Some(image))
            }
            None => {
                let update = sqlx::query(
                    "UPDATE pictures SET state = $1, problem = $2, next_at = $3, version = version + $4
                     WHERE id = $5 AND idempotency_key = $6",
                );
                (update, None)
            }
        };
        let update = pictures.bind(state).bind(problem).bind(now() + ask_in_ms).bind(changed);
        let update = update.bind(&picture.id).bind(&picture.idempotency_key);
        let update = match noted {
            Some(image) => update
                .bind(&image.url)
                .bind(i64::from(image.width))
                .bind(i64::from(image.height))
                .bind(&image.thumbhash),
            None => update,
        };
        update.execute(&self.pool).await.map(|_| ())
    }

    /// Returns one picture of a teacher's.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn picture_of(&self, teacher: &Teacher, id: &str) -> Result<Option<Picture>, sqlx::Error> {
        let scope = Scope { teacher: teacher.id.clone(), class: String::new() };
        Ok(self.pictures_of(&scope, &[id]).await?.pop())
    }
}

pub(crate) fn picture(row: &AnyRow) -> Result<Picture, sqlx::Error> {
    let number = |column: &str| -> Result<u32, sqlx::Error> {
        let number: i64 = row.try_get(column)?;
        u32::try_from(number).map_err(|error| sqlx::Error::Decode(error.into()))
    };
    let word: String = row.try_get("state")?;
    let state = State::of(&word).ok_or_else(|| sqlx::Error::Decode(format!("no state is called {word}").into()))?;
    let image = match row.try_get::<Option<String>, _>("image_url")? {
        Some(url) => Some(Image {
            url,
            width: number("image_width")?,
            height: number("image_height")?,
            thumbhash: row.try_get::<Option<String>, _>("thumbhash")?.unwrap_or_default(),
        }),
        None => None,
    };
    Ok(Picture {
        id: row.try_get("id")?,
        assignment_id: row.try_get("assignment_id")?,
        prompt: row.try_get("prompt")?,
        style: Style::of(&row.try_get::<String, _>("style")?),
        alt: row.try_get("alt")?,
        seed: number("seed")?,
        state,
        idempotency_key: row.try_get("idempotency_key")?,
        cancel_wanted: row.try_get::<i64, _>("cancel_wanted")? != 0,
        status_url: row.try_get("status_url")?,
        problem: row.try_get("problem")?,
        image,
        version: row.try_get("version")?,
        next_at: row.try_get("next_at")?,
    })
}
