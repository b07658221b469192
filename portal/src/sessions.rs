//! Sessions: who is behind a cookie, and until when.

use std::time::Duration;

use crate::accounts::{Student, Teacher, student, teacher};
use crate::database::{Database, now};
use crate::secret;

/// Who is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    Teacher(Teacher),
    Student(Student),
}

impl Who {
    /// Returns what this person may see.
    pub fn scope(&self) -> Scope {
        match self {
            Self::Teacher(teacher) => Scope { teacher: teacher.id.clone(), class: String::new() },
            Self::Student(student) => Scope { teacher: String::new(), class: student.class_id.clone() },
        }
    }

    /// Returns the name that the page shows.
    pub fn name(&self) -> &str {
        match self {
            Self::Teacher(teacher) => &teacher.name,
            Self::Student(student) => &student.name,
        }
    }
}

/// Whose assignments: those of a teacher's classes, or of one class. The other field is empty, which is nobody's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub(crate) teacher: String,
    pub(crate) class: String,
}

impl Database {
    /// Makes a session and returns its token, which is kept nowhere but in the cookie.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn begin_session(&self, who: &Who, lasts: Duration) -> Result<String, sqlx::Error> {
        let token = secret::token();
        let (teacher, student) = match who {
            Who::Teacher(teacher) => (Some(teacher.id.clone()), None),
            Who::Student(student) => (None, Some(student.id.clone())),
        };
        sqlx::query("INSERT INTO sessions (token_hash, teacher_id, student_id, expires_at) VALUES ($1, $2, $3, $4)")
            .bind(secret::token_hash(&token))
            .bind(teacher)
            .bind(student)
            .bind(now() + i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX))
            .execute(&self.pool)
            .await?;
        Ok(token)
    }

    /// Returns who is signed in with this token.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn session(&self, token: &str) -> Result<Option<Who>, sqlx::Error> {
        let hash = secret::token_hash(token);
        let as_teacher = sqlx::query(
            "SELECT t.id, t.name FROM sessions s JOIN teachers t ON t.id = s.teacher_id
             WHERE s.token_hash = $1 AND s.expires_at > $2",
        );
        if let Some(row) = as_teacher.bind(&hash).bind(now()).fetch_optional(&self.pool).await? {
            return Ok(Some(Who::Teacher(teacher(&row)?)));
        }
        let as_student = sqlx::query(
            "SELECT u.id, u.name, u.class_id, u.pin_hash FROM sessions s JOIN students u ON u.id = s.student_id
             WHERE s.token_hash = $1 AND s.expires_at > $2",
        );
        let row = as_student.bind(&hash).bind(now()).fetch_optional(&self.pool).await?;
        row.map(|row| Ok(Who::Student(student(&row)?))).transpose()
    }

    /// Ends a session.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn end_session(&self, token: &str) -> Result<(), sqlx::Error> {
        let delete = sqlx::query("DELETE FROM sessions WHERE token_hash = $1").bind(secret::token_hash(token));
        delete.execute(&self.pool).await.map(|_| ())
    }

    /// Removes what nobody can use any more: expired sessions, and keys of forms that are older than `forms`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tidy(&self, forms: Duration) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM sessions WHERE expires_at <= $1").bind(now()).execute(&self.pool).await?;
        let before = now() - i64::try_from(forms.as_millis()).unwrap_or(i64::MAX);
        sqlx::query("DELETE FROM used_forms WHERE used_at < $1").bind(before).execute(&self.pool).await.map(|_| ())
    }
}
