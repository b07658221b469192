//! Teachers, their classes, and the students who join with a class code.

use sqlx::Row;
use sqlx::any::AnyRow;

use crate::database::{Database, now};
use crate::secret;

/// Who creates assignments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Teacher {
    pub id: String,
    pub name: String,
}

/// Whom an assignment is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    pub id: String,
    pub name: String,
    pub code: String,
}

/// Who completes assignments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Student {
    pub id: String,
    pub name: String,
    pub class_id: String,
    /// Whether a PIN is set.
    pub has_pin: bool,
}

/// What became of a student's sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined {
    /// Signed in, for the first time or again.
    As(Student),
    /// No class has this code.
    NoSuchClass,
    /// Somebody of this name is in the class, with another PIN.
    WrongPin,
}

impl Database {
    /// Adds a teacher with a class of their own, or changes the password, and the name if one is given, of the one with this
    /// address. Whoever is signed in as them is not any more.
    ///
    /// # Errors
    /// When the database does not answer, or the class code belongs to another teacher's class.
    pub async fn put_teacher(
        &self,
        email: &str,
        name: Option<&str>,
        hash: &str,
        code: &str,
    ) -> Result<(), sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        sqlx::query(
            "INSERT INTO teachers (id, email, name, password_hash, created_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (email) DO UPDATE SET password_hash = excluded.password_hash,
             name = CASE WHEN $6 = '' THEN teachers.name ELSE $6 END",
        )
        .bind(secret::id())
        .bind(folded(email))
        .bind(name.unwrap_or("Teacher"))
        .bind(hash)
        .bind(now())
        .bind(name.unwrap_or_default())
        .execute(&mut *tx)
        .await?;
        let teacher: String = sqlx::query("SELECT id FROM teachers WHERE email = $1")
            .bind(folded(email))
            .fetch_one(&mut *tx)
            .await?
            .try_get("id")?;
        sqlx::query("DELETE FROM sessions WHERE teacher_id = $1").bind(&teacher).execute(&mut *tx).await?;
        let classes: i64 = sqlx::query("SELECT COUNT(*) AS n FROM classes WHERE teacher_id = $1")
            .bind(&teacher)
            .fetch_one(&mut *tx)
            .await?
            .try_get("n")?;
        if classes == 0 {
            insert_class(&teacher, "My class", code).execute(&mut *tx).await?;
        }
        tx.commit().await
    }

    /// Tells whether there is a teacher with this address.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn has_teacher(&self, email: &str) -> Result<bool, sqlx::Error> {
        let found = sqlx::query("SELECT id FROM teachers WHERE email = $1").bind(folded(email));
        Ok(found.fetch_optional(&self.pool).await?.is_some())
    }

    /// Returns the teacher of an address and a password.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn teacher_with_password(&self, email: &str, password: String) -> Result<Option<Teacher>, sqlx::Error> {
        let found = sqlx::query("SELECT id, name, password_hash FROM teachers WHERE email = $1");
        let found = found.bind(folded(email)).fetch_optional(&self.pool).await?;
        let hash: Option<String> = found.as_ref().map(|row| row.try_get("password_hash")).transpose()?;
        let known = secret::verify_password(password, hash).await;
        found.filter(|_| known).map(|row| teacher(&row)).transpose()
    }

    /// Adds a class with a new code.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn add_class(&self, teacher: &Teacher, name: &str) -> Result<(), sqlx::Error> {
        insert_class(&teacher.id, name, &secret::class_code()).execute(&self.pool).await.map(|_| ())
    }

    /// Returns a teacher's classes, the oldest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn classes(&self, teacher: &Teacher) -> Result<Vec<Class>, sqlx::Error> {
        let rows = sqlx::query("SELECT id, name, code FROM classes WHERE teacher_id = $1 ORDER BY created_at, id");
        rows.bind(&teacher.id).fetch_all(&self.pool).await?.iter().map(class).collect()
    }

    /// Returns the students of a teacher's classes by name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn students(&self, teacher: &Teacher) -> Result<Vec<Student>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT s.id, s.name, s.class_id, s.pin_hash FROM students s JOIN classes c ON c.id = s.class_id
             WHERE c.teacher_id = $1 ORDER BY s.folded_name, s.id",
        );
        rows.bind(&teacher.id).fetch_all(&self.pool).await?.iter().map(student).collect()
    }

    /// Takes a student's PIN back, so that they can choose a new one.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_pin(&self, teacher: &Teacher, student: &str) -> Result<bool, sqlx::Error> {
        let mut tx = self.pool.begin().await?;
        let done = sqlx::query(
            "UPDATE students SET pin_hash = NULL WHERE id = $1
             AND class_id IN (SELECT id FROM classes WHERE teacher_id = $2)",
        );
        let done = done.bind(student).bind(&teacher.id).execute(&mut *tx).await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("DELETE FROM sessions WHERE student_id = $1").bind(student).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Signs a student in. The first sign-in under a name makes the student and sets the PIN.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn join(&self, code: &str, name: &str, pin: String) -> Result<Joined, sqlx::Error> {
        let class: Option<AnyRow> = sqlx::query("SELECT id FROM classes WHERE code = $1")
            .bind(secret::normalised_code(code))
            .fetch_optional(&self.pool)
            .await?;
        let Some(class) = class else { return Ok(Joined::NoSuchClass) };
        let class_id: String = class.try_get("id")?;
        sqlx::query(
            "INSERT INTO students (id, class_id, name, folded_name, created_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (class_id, folded_name) DO NOTHING",
        )
        .bind(secret::id())
        .bind(&class_id)
        .bind(name)
        .bind(folded(name))
        .bind(now())
        .execute(&self.pool)
        .await?;
        let row =
            sqlx::query("SELECT id, name, class_id, pin_hash FROM students WHERE class_id = $1 AND folded_name = $2")
                .bind(&class_id)
                .bind(folded(name))
                .fetch_one(&self.pool)
                .await?;
        let found = student(&row)?;
        if let Some(hash) = row.try_get::<Option<String>, _>("pin_hash")? {
            let known = secret::verify_password(pin, Some(hash)).await;
            return Ok(if known { Joined::As(found) } else { Joined::WrongPin });
        }
        let hash = secret::hash_password(pin).await.map_err(|error| sqlx::Error::Protocol(error.to_string()))?;
        // Of two who choose the name at once, the first has it.
        let set = sqlx::query("UPDATE students SET pin_hash = $1 WHERE id = $2 AND pin_hash IS NULL")
            .bind(hash)
            .bind(&found.id)
            .execute(&self.pool)
            .await?;
        Ok(if set.rows_affected() == 1 { Joined::As(Student { has_pin: true, ..found }) } else { Joined::WrongPin })
    }
}

fn insert_class<'q>(
    teacher: &str,
    name: &str,
    code: &str,
) -> sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments> {
    sqlx::query("INSERT INTO classes (id, teacher_id, name, code, created_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(secret::id())
        .bind(teacher.to_owned())
        .bind(name.to_owned())
        .bind(secret::normalised_code(code))
        .bind(now())
}

/// Returns a name as it is compared.
pub(crate) fn folded(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

pub(crate) fn teacher(row: &AnyRow) -> Result<Teacher, sqlx::Error> {
    Ok(Teacher { id: row.try_get("id")?, name: row.try_get("name")? })
}

pub(crate) fn class(row: &AnyRow) -> Result<Class, sqlx::Error> {
    Ok(Class { id: row.try_get("id")?, name: row.try_get("name")?, code: row.try_get("code")? })
}

pub(crate) fn student(row: &AnyRow) -> Result<Student, sqlx::Error> {
    let pin: Option<String> = row.try_get("pin_hash")?;
    Ok(Student {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        class_id: row.try_get("class_id")?,
        has_pin: pin.is_some(),
    })
}
