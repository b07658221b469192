//! `Place`: where a JSON text is wrong, without a word of the text.

use std::fmt;

use serde_json::error::Category;

/// What a parser's error may say in a log line: serde's own messages quote values, and here they would be prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    what: &'static str,
    line: usize,
    column: usize,
}

impl From<&serde_json::Error> for Place {
    fn from(error: &serde_json::Error) -> Self {
        let what = match error.classify() {
            Category::Io => "read error",
            Category::Syntax => "syntax error",
            Category::Data => "wrong field",
            Category::Eof => "cut off",
        };
        Self { what, line: error.line(), column: error.column() }
    }
}

impl From<serde_json::Error> for Place {
    fn from(error: serde_json::Error) -> Self {
        Self::from(&error)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}:{}", self.what, self.line, self.column)
    }
}
