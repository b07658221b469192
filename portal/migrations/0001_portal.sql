-- One file for SQLite and PostgreSQL: TEXT and BIGINT alone, which mean the same in both.
-- Times are milliseconds since 1970, UTC. Ids are random text. Flags are 0 or 1.

CREATE TABLE teachers (
    id TEXT PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE classes (
    id TEXT PRIMARY KEY,
    teacher_id TEXT NOT NULL REFERENCES teachers (id),
    name TEXT NOT NULL,
    code TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);
CREATE INDEX classes_of_teacher ON classes (teacher_id);

CREATE TABLE students (
    id TEXT PRIMARY KEY,
    class_id TEXT NOT NULL REFERENCES classes (id),
    name TEXT NOT NULL,
    folded_name TEXT NOT NULL,
    -- Absent after the teacher has taken it back: the next sign-in chooses a new one.
    pin_hash TEXT,
    created_at BIGINT NOT NULL,
    UNIQUE (class_id, folded_name)
);

CREATE TABLE sessions (
    -- SHA-256 of the cookie: who reads this table cannot sign in with it.
    token_hash TEXT PRIMARY KEY,
    teacher_id TEXT REFERENCES teachers (id),
    student_id TEXT REFERENCES students (id),
    expires_at BIGINT NOT NULL
);

CREATE TABLE assignments (
    id TEXT PRIMARY KEY,
    class_id TEXT NOT NULL REFERENCES classes (id),
    title TEXT NOT NULL,
    question TEXT NOT NULL,
    -- Title, question and descriptions in lower case: neither database folds all of Unicode by itself.
    search_text TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX assignments_of_class ON assignments (class_id, created_at);

CREATE TABLE pictures (
    id TEXT PRIMARY KEY,
    assignment_id TEXT NOT NULL REFERENCES assignments (id),
    position BIGINT NOT NULL,
    prompt TEXT NOT NULL,
    style TEXT NOT NULL,
    alt TEXT NOT NULL,
    seed BIGINT NOT NULL,
    -- 'unsent', 'refused', or a state of the job as the API names it.
    state TEXT NOT NULL,
    -- What the API knows this request by: the same key is the same job, however often it is sent.
    idempotency_key TEXT NOT NULL UNIQUE,
    tries BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    cancel_wanted BIGINT NOT NULL,
    status_url TEXT,
    problem TEXT,
    -- The last picture that was made; it stays until a new one takes its place.
    image_url TEXT,
    image_width BIGINT,
    image_height BIGINT,
    thumbhash TEXT,
    -- Counts what a reader can see change.
    version BIGINT NOT NULL,
    UNIQUE (assignment_id, position)
);
CREATE INDEX pictures_due ON pictures (state, next_at);

CREATE TABLE answers (
    assignment_id TEXT NOT NULL REFERENCES assignments (id),
    student_id TEXT NOT NULL REFERENCES students (id),
    text TEXT NOT NULL,
    saved_at BIGINT NOT NULL,
    submitted_at BIGINT,
    PRIMARY KEY (assignment_id, student_id)
);

-- A form that was sent once does nothing the second time.
CREATE TABLE used_forms (
    form_key TEXT PRIMARY KEY,
    location TEXT NOT NULL,
    used_at BIGINT NOT NULL
);
