//! Paragraphs of `Field: value`, as in apt's `.sources` files and dpkg's status (deb822(5)). Knows the syntax and no
//! field.

/// One paragraph: its fields in order. Names compare without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paragraph {
    fields: Vec<(String, String)>,
}

impl Paragraph {
    /// The value of a field; its continuation lines follow its first line, each after a line feed.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The words of a field; none where it is missing.
    pub fn words(&self, name: &str) -> impl Iterator<Item = &str> {
        self.get(name).unwrap_or_default().split_whitespace()
    }

    /// Names and values in order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// The paragraphs of a text. Comment lines (`#` in the first column) count for nothing, not even as the end of a
/// paragraph; a line that is no field and continues none is left out.
pub fn parse(text: &str) -> Vec<Paragraph> {
    let mut all = vec![];
    let mut current = Paragraph::default();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        if line.trim().is_empty() {
            if !current.fields.is_empty() {
                all.push(std::mem::take(&mut current));
            }
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = current.fields.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            current.fields.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    if !current.fields.is_empty() {
        all.push(current);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_continuations_are_read_as_apt_reads_them() {
        let text = "\n# head\nTypes: deb\n# in between\nURIs: http://a/debian\n\thttp://b/debian\nSuites:x y\n\n \nTypes: deb-src";
        let all = parse(text);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].words("uris").collect::<Vec<_>>(), ["http://a/debian", "http://b/debian"]);
        assert_eq!(all[0].words("Suites").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!((all[0].get("missing"), all[1].get("types")), (None, Some("deb-src")));
        assert_eq!(all[0].fields().count(), 3);
    }
}
