//! `Style`: how a picture is to look, and the words that are put behind its description.

use job::JobSpec;

/// Longest description in characters. The model would take more; a form that says it all in less is read.
pub const MAX_PROMPT_CHARS: usize = 2000;
/// Longest alternative text in characters: a screen reader reads it in one go.
pub const MAX_ALT_CHARS: usize = 300;
/// Where a suggested alternative text ends at the latest.
const SUGGESTED_ALT_CHARS: usize = 150;

/// A preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    AsDescribed,
    Watercolour,
    Illustration,
    Pencil,
    Photograph,
    Diagram,
}

impl Style {
    /// All presets, in the order of the form.
    pub const ALL: [Self; 6] =
        [Self::AsDescribed, Self::Watercolour, Self::Illustration, Self::Pencil, Self::Photograph, Self::Diagram];

    /// Returns the word in forms and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AsDescribed => "as-described",
            Self::Watercolour => "watercolour",
            Self::Illustration => "illustration",
            Self::Pencil => "pencil",
            Self::Photograph => "photograph",
            Self::Diagram => "diagram",
        }
    }

    /// Returns the preset of a word; one that nobody knows any more is no preset.
    pub fn of(word: &str) -> Self {
        Self::ALL.into_iter().find(|style| style.as_str() == word).unwrap_or(Self::AsDescribed)
    }

    /// Returns its name on the page.
    pub fn label(self) -> &'static str {
        match self {
            Self::AsDescribed => "As described",
            Self::Watercolour => "Watercolour",
            Self::Illustration => "Children’s book",
            Self::Pencil => "Pencil drawing",
            Self::Photograph => "Photograph",
            Self::Diagram => "Textbook diagram",
        }
    }

    /// Returns what the model is asked for.
    pub fn prompt(self, description: &str) -> String {
        let words = match self {
            Self::AsDescribed => return description.to_owned(),
            Self::Watercolour => "a soft watercolour painting on white paper",
            Self::Illustration => "a friendly illustration for a children's book, flat colours, clear outlines",
            Self::Pencil => "a detailed pencil drawing, black and white",
            Self::Photograph => "a realistic photograph in natural light",
            Self::Diagram => "a clear textbook diagram on a white background, without text",
        };
        format!("{description}\n\nStyle: {words}")
    }
}

/// Checks a description.
///
/// # Errors
/// A sentence for the person who wrote it.
pub fn check_description(text: &str) -> Result<(), String> {
    let chars = text.chars().count();
    if chars > MAX_PROMPT_CHARS {
        return Err(format!("The description has {chars} characters. Shorten it to {MAX_PROMPT_CHARS} at most."));
    }
    match JobSpec::new(text.to_owned(), None, None) {
        Ok(_) => Ok(()),
        Err(job::InvalidJobSpec::ForbiddenCharacter { position, .. }) => {
            Err(format!("The description has a character that cannot be used, at position {position}. Remove it."))
        }
        Err(_) => Err("Describe what the picture should show.".to_owned()),
    }
}

/// Suggests an alternative text: what the description begins with, in one line, without words such as "a picture of".
pub fn suggested_alt(description: &str) -> String {
    let words: Vec<&str> = description.split_whitespace().collect();
    let text = words.join(" ");
    let lower = text.to_lowercase();
    let leads = ["a picture of ", "picture of ", "an image of ", "image of ", "a photo of ", "a drawing of ", "draw "];
    let lead = leads.iter().find(|lead| lower.starts_with(**lead)).map_or(0, |lead| lead.len());
    // Of the same length in both cases: the leads are ASCII.
    let text = text.get(lead..).unwrap_or(&text);
    let mut suggested = String::new();
    for word in text.split(' ') {
        if suggested.chars().count() + 1 + word.chars().count() > SUGGESTED_ALT_CHARS {
            break;
        }
        if !suggested.is_empty() {
            suggested.push(' ');
        }
        suggested.push_str(word);
    }
    let mut chars = suggested.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_adds_words_and_keeps_the_description() {
        for style in Style::ALL {
            assert!(style.prompt("a fox").starts_with("a fox"));
            assert_eq!(Style::of(style.as_str()), style);
        }
        assert_eq!(Style::of("cubism"), Style::AsDescribed);
        assert_eq!(Style::AsDescribed.prompt("a fox"), "a fox");
    }

    #[test]
    fn a_description_that_cannot_be_sent_is_told_in_plain_words() {
        assert!(check_description("a fox\nin the snow").is_ok());
        assert!(check_description(" \n").unwrap_err().starts_with("Describe"));
        assert!(check_description(&"x".repeat(MAX_PROMPT_CHARS + 1)).unwrap_err().contains("2001"));
        assert!(check_description("a\u{1}b").unwrap_err().contains("position 2"));
    }

    #[test]
    fn an_alternative_text_is_suggested_from_the_description() {
        assert_eq!(suggested_alt("a picture of  a red fox\nin the snow"), "A red fox in the snow");
        assert_eq!(suggested_alt("Draw the water cycle"), "The water cycle");
        assert_eq!(suggested_alt("Élan vital"), "Élan vital");
        assert_eq!(suggested_alt(" "), "");
        let long = suggested_alt(&"word ".repeat(100));
        assert!(long.chars().count() <= SUGGESTED_ALT_CHARS && long.ends_with("word"));
    }
}
