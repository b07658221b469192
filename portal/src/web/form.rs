//! `Form`: what a browser has sent, field by field, as it came.

use std::borrow::Cow;

use crate::page::{CSRF, FORM_KEY};
use crate::secret;

/// The fields of a form, in their order; a name may come more than once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Form {
    fields: Vec<(String, String)>,
    /// As it came.
    encoded: String,
}

impl Form {
    /// Reads an URL-encoded body. What is no text is replaced by U+FFFD, as browsers do.
    pub(crate) fn parse(body: &[u8]) -> Self {
        let owned = |(name, value): (Cow<'_, str>, Cow<'_, str>)| (name.into_owned(), value.into_owned());
        let fields = form_urlencoded::parse(body).map(owned).collect();
        Self { fields, encoded: String::from_utf8_lossy(body).into_owned() }
    }

    /// Returns a field as it came; an absent one is empty.
    pub(crate) fn raw(&self, name: &str) -> &str {
        self.fields.iter().find(|(named, _)| named == name).map_or("", |(_, value)| value)
    }

    /// Returns a text: without white space around it, and with the line ends of this world.
    pub(crate) fn text(&self, name: &str) -> String {
        tidied(self.raw(name))
    }

    /// Returns all texts of a name.
    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        self.fields.iter().filter(|(named, _)| named == name).map(|(_, value)| tidied(value)).collect()
    }

    /// Returns a key for what is asked for: that which was made with the form, and every field but the visitor's token. The
    /// same form sent twice has the same; one that was changed after Back has another.
    pub(crate) fn fingerprint(&self, form_key: &str) -> String {
        let fields = self.fields.iter().filter(|(name, _)| name != CSRF && name != FORM_KEY);
        let parts = fields.flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        secret::fingerprint(std::iter::once(form_key).chain(parts))
    }

    /// Returns the body, to be carried through a sign-in.
    pub(crate) fn encoded(&self) -> &str {
        &self.encoded
    }
}

/// Browsers send line ends as CR LF whatever a person typed, and SQL searches them as two characters. PostgreSQL takes no
/// NUL.
fn tidied(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\0', "").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_as_they_were_written() {
        let form = Form::parse(b"title=A+fox%21&prompt=one%0D%0Atwo%00+&prompt=&q=%ff");
        assert_eq!(form.raw("title"), "A fox!");
        assert_eq!(form.texts("prompt"), ["one\ntwo", ""]);
        assert_eq!(form.raw("q"), "\u{fffd}");
        assert_eq!(form.raw("absent"), "");
        assert!(form.encoded().starts_with("title=A+fox"));
    }

    #[test]
    fn a_changed_form_has_another_fingerprint_and_one_that_is_sent_again_has_not() {
        let of = |body: &str, key: &str| Form::parse(body.as_bytes()).fingerprint(key);
        let first = of("csrf=1&form_key=k&title=Mon", "k");
        assert_eq!(first, of("csrf=2&form_key=k&title=Mon", "k"));
        for other in [of("title=Tue", "k"), of("title=Mon", "l"), of("titleM=on", "k"), of("", "k")] {
            assert_ne!(first, other);
        }
    }
}
