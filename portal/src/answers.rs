//! Answers: saved as often as one likes, submitted once.

use sqlx::Row;
use sqlx::any::AnyRow;

use crate::accounts::Student;
use crate::database::{Database, now};

/// Longest answer in characters.
pub const MAX_ANSWER_CHARS: usize = 20_000;

/// A student's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub text: String,
    /// Whether it is final.
    pub submitted: bool,
}

impl Database {
    /// Returns a student's answer to an assignment.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn answer(&self, assignment: &str, student: &Student) -> Result<Option<Answer>, sqlx::Error> {
        let row = sqlx::query("SELECT text, submitted_at FROM answers WHERE assignment_id = $1 AND student_id = $2");
        row.bind(assignment).bind(&student.id).fetch_optional(&self.pool).await?.as_ref().map(answer).transpose()
    }

    /// Saves an answer, for good if `submit`. Returns false, and changes nothing, if one was submitted before.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn save_answer(
        &self,
        assignment: &str,
        student: &Student,
        text: &str,
        submit: bool,
    ) -> Result<bool, sqlx::Error> {
        // The condition is in the statement: of two that come together, one is the submission.
        let saved = sqlx::query(
            "INSERT INTO answers (assignment_id, student_id, text, saved_at, submitted_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (assignment_id, student_id) DO UPDATE
             SET text = excluded.text, saved_at = excluded.saved_at, submitted_at = excluded.submitted_at
             WHERE answers.submitted_at IS NULL",
        )
        .bind(assignment)
        .bind(&student.id)
        .bind(text)
        .bind(now())
        .bind(submit.then(now))
        .execute(&self.pool)
        .await?;
        Ok(saved.rows_affected() == 1)
    }

    /// Returns the submitted answers to an assignment by name, and how many students have begun one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn answers(&self, assignment: &str) -> Result<(Vec<(String, Answer)>, usize), sqlx::Error> {
        let rows = sqlx::query(
            "SELECT s.name, w.text, w.submitted_at FROM answers w JOIN students s ON s.id = w.student_id
             WHERE w.assignment_id = $1 ORDER BY s.folded_name, s.id",
        );
        let rows = rows.bind(assignment).fetch_all(&self.pool).await?;
        let all = rows.iter().map(|row| Ok((row.try_get("name")?, answer(row)?)));
        let all: Vec<(String, Answer)> = all.collect::<Result<_, sqlx::Error>>()?;
        let begun = all.iter().filter(|(_, answer)| !answer.submitted).count();
        Ok((all.into_iter().filter(|(_, answer)| answer.submitted).collect(), begun))
    }
}

fn answer(row: &AnyRow) -> Result<Answer, sqlx::Error> {
    let submitted_at: Option<i64> = row.try_get("submitted_at")?;
    Ok(Answer { text: row.try_get("text")?, submitted: submitted_at.is_some() })
}
