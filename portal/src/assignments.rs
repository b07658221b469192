//! Assignments: created once, searched, shown page by page.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use crate::accounts::Teacher;
use crate::database::{Database, like, now};
use crate::pictures::{Picture, picture, picture_columns};
use crate::secret;
use crate::sessions::Scope;
use crate::style::Style;

/// Most pictures of an assignment: they go to the API in one batch.
pub const MAX_PICTURES: usize = 30;
/// Assignments on a page of the gallery: it fills rows of two, three and four.
pub const PAGE_LEN: i64 = 12;
/// Words of a search that count.
const MAX_WORDS: usize = 4;

/// What the gallery reads, and counts: every assignment with its first picture.
macro_rules! gallery_from {
    () => {
        "FROM assignments a JOIN classes c ON c.id = a.class_id
         JOIN pictures p ON p.assignment_id = a.id AND p.position = 0
         WHERE (c.teacher_id = $1 OR a.class_id = $2)
         AND a.search_text LIKE $3 ESCAPE '\\' AND a.search_text LIKE $4 ESCAPE '\\'
         AND a.search_text LIKE $5 ESCAPE '\\' AND a.search_text LIKE $6 ESCAPE '\\'"
    };
}

/// An assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub id: String,
    pub class_name: String,
    pub title: String,
    pub question: String,
}

/// An assignment to be.
#[derive(Debug, Clone)]
pub struct NewAssignment {
    pub class_id: String,
    pub title: String,
    pub question: String,
    pub style: Style,
    pub pictures: Vec<NewPicture>,
    /// Made with the form: sending the form twice makes one assignment.
    pub form_key: String,
}

/// A picture to be.
#[derive(Debug, Clone)]
pub struct NewPicture {
    pub prompt: String,
    pub alt: String,
}

/// One page of the gallery.
#[derive(Debug, Clone)]
pub struct GalleryPage {
    /// Assignments, each with its first picture and the number of its pictures; the newest first.
    pub items: Vec<(Assignment, Picture, i64)>,
    /// How many there are in all.
    pub total: i64,
}

impl Database {
    /// Keeps a new assignment, its pictures unsent. Returns its id, or that of the one that this form made before.
    ///
    /// # Errors
    /// When the database does not answer, or the class is not the teacher's (`RowNotFound`).
    pub async fn create_assignment(&self, teacher: &Teacher, new: &NewAssignment) -> Result<String, sqlx::Error> {
        let id = secret::id();
        let mut tx = self.pool.begin().await?;
        if let Some(first) = use_form(&mut tx, &new.form_key, &id).await? {
            return Ok(first);
        }
        // Used so long ago that it has been forgotten: the pictures know it.
        let asked = sqlx::query("SELECT assignment_id FROM pictures WHERE idempotency_key = $1");
        if let Some(row) = asked.bind(format!("{}-0", new.form_key)).fetch_optional(&mut *tx).await? {
            tx.rollback().await?;
            return row.try_get("assignment_id");
        }
        sqlx::query("SELECT id FROM classes WHERE id = $1 AND teacher_id = $2")
            .bind(&new.class_id)
            .bind(&teacher.id)
            .fetch_one(&mut *tx)
            .await?;
        sqlx::query(
            "INSERT INTO assignments (id, class_id, title, question, search_text, created_at)
             VALUES ($1, $2, $3, $4, '', $5)",
        )
        .bind(&id)
        .bind(&new.class_id)
        .bind(&new.title)
        .bind(&new.question)
        .bind(now())
        .execute(&mut *tx)
        .await?;
        for (position, picture) in (0_i64..).zip(&new.pictures) {
            sqlx::query(
                "INSERT INTO pictures (id, assignment_id, position, prompt, style, alt, seed, state, idempotency_key,
                 tries, next_at, cancel_wanted, version) VALUES ($1, $2, $3, $4, $5, $6, $7, 'unsent', $8, 0, 0, 0, 1)",
            )
            .bind(secret::id())
            .bind(&id)
            .bind(position)
            .bind(&picture.prompt)
            .bind(new.style.as_str())
            .bind(&picture.alt)
            .bind(seed())
            .bind(format!("{}-{position}", new.form_key))
            .execute(&mut *tx)
            .await?;
        }
        note_search(&mut tx, &id).await?;
        tx.commit().await?;
        Ok(id)
    }

    /// Returns an assignment that is in the scope.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn assignment(&self, scope: &Scope, id: &str) -> Result<Option<Assignment>, sqlx::Error> {
        let row = sqlx::query(
            "SELECT a.id, a.title, a.question, c.name AS class_name
             FROM assignments a JOIN classes c ON c.id = a.class_id
             WHERE a.id = $3 AND (c.teacher_id = $1 OR a.class_id = $2)",
        )
        .bind(&scope.teacher)
        .bind(&scope.class)
        .bind(id)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(assignment).transpose()
    }

    /// Returns one page of what is in the scope and has every word of `search`; pages count from 0.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn gallery(&self, scope: &Scope, search: &str, page: i64) -> Result<GalleryPage, sqlx::Error> {
        let mut words: Vec<String> = search.to_lowercase().split_whitespace().take(MAX_WORDS).map(like).collect();
        words.resize(MAX_WORDS, "%".to_owned());
        let [one, two, three, four] = [0, 1, 2, 3].map(|n| words[n].clone());
        let total: i64 = sqlx::query(concat!("SELECT COUNT(*) AS n ", gallery_from!()))
            .bind(&scope.teacher)
            .bind(&scope.class)
            .bind(&one)
            .bind(&two)
            .bind(&three)
            .bind(&four)
            .fetch_one(&self.pool)
            .await?
            .try_get("n")?;
        let rows = sqlx::query(concat!(
            "SELECT a.title, a.question, c.name AS class_name, ",
            picture_columns!(),
            ", (SELECT COUNT(*) FROM pictures o WHERE o.assignment_id = a.id) AS pictures ",
            gallery_from!(),
            " ORDER BY a.created_at DESC, a.id LIMIT $7 OFFSET $8"
        ))
        .bind(&scope.teacher)
        .bind(&scope.class)
        .bind(one)
        .bind(two)
        .bind(three)
        .bind(four)
        .bind(PAGE_LEN)
        .bind(page.saturating_mul(PAGE_LEN))
        .fetch_all(&self.pool)
        .await?;
        let item = |row: &AnyRow| {
            let picture = picture(row)?;
            let assignment = Assignment {
                id: picture.assignment_id.clone(),
                class_name: row.try_get("class_name")?,
                title: row.try_get("title")?,
                question: row.try_get("question")?,
            };
            Ok((assignment, picture, row.try_get("pictures")?))
        };
        Ok(GalleryPage { items: rows.iter().map(item).collect::<Result<_, sqlx::Error>>()?, total })
    }
}

/// Notes that a form is being used. Returns what its first use made, if this is not the first.
pub(crate) async fn use_form(
    connection: &mut AnyConnection,
    form_key: &str,
    location: &str,
) -> Result<Option<String>, sqlx::Error> {
    let first = sqlx::query(
        "INSERT INTO used_forms (form_key, location, used_at) VALUES ($1, $2, $3) ON CONFLICT (form_key) DO NOTHING",
    )
    .bind(form_key)
    .bind(location)
    .bind(now())
    .execute(&mut *connection)
    .await?;
    if first.rows_affected() == 1 {
        return Ok(None);
    }
    let before = sqlx::query("SELECT location FROM used_forms WHERE form_key = $1").bind(form_key);
    Ok(Some(before.fetch_one(&mut *connection).await?.try_get("location")?))
}

/// Notes the words that an assignment is found by.
pub(crate) async fn note_search(connection: &mut AnyConnection, assignment: &str) -> Result<(), sqlx::Error> {
    // One after another: of two at once, each would miss the other's words.
    let lock = sqlx::query("UPDATE assignments SET search_text = search_text WHERE id = $1");
    lock.bind(assignment).execute(&mut *connection).await?;
    let rows = sqlx::query(
        "SELECT title AS one, question AS two FROM assignments WHERE id = $1
         UNION ALL SELECT prompt AS one, alt AS two FROM pictures WHERE assignment_id = $1",
    );
    let mut words = Vec::new();
    for row in rows.bind(assignment).fetch_all(&mut *connection).await? {
        words.extend([row.try_get::<String, _>("one")?, row.try_get::<String, _>("two")?]);
    }
    let update = sqlx::query("UPDATE assignments SET search_text = $1 WHERE id = $2");
    update.bind(words.join("\n").to_lowercase()).bind(assignment).execute(connection).await.map(|_| ())
}

/// Returns a seed that the model takes as such: 0 would mean any.
pub(crate) fn seed() -> i64 {
    i64::from(rand::random::<u32>().max(1))
}

fn assignment(row: &AnyRow) -> Result<Assignment, sqlx::Error> {
    Ok(Assignment {
        id: row.try_get("id")?,
        class_name: row.try_get("class_name")?,
        title: row.try_get("title")?,
        question: row.try_get("question")?,
    })
}
