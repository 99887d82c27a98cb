//! A command line as it is being typed: its words without quotes, and what the shell will do with an answer.

use std::collections::BTreeMap;

/// The line up to the cursor.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    words: Vec<String>,
    /// The quote that is still open in the last word.
    open: Option<char>,
}

impl Line {
    /// Reads a line as the shells do that matter: words, quotes, backslashes, `~` and variables.
    pub(super) fn read(text: &str, environment: &BTreeMap<String, String>) -> Self {
        let mut line = Self::default();
        let mut word: Option<String> = None;
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match (c, line.open) {
                (c, Some(quote)) if c == quote => line.open = None,
                ('\\', None | Some('"')) => word.get_or_insert_default().extend(rest.next()),
                ('$', None | Some('"')) => {
                    let mut name = String::new();
                    let is_braced = rest.next_if_eq(&'{').is_some();
                    while let Some(c) = rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
                        name.push(c);
                    }
                    if is_braced {
                        rest.next_if_eq(&'}');
                    }
                    let value = environment.get(&name).map(String::as_str).unwrap_or_default();
                    word.get_or_insert_default().push_str(value);
                }
                ('\'' | '"', None) => {
                    line.open = Some(c);
                    word.get_or_insert_default();
                }
                ('~', None) if word.is_none() && rest.peek() == Some(&'/') => {
                    word = Some(environment.get("HOME").cloned().unwrap_or_default());
                }
                (c, None) if c.is_whitespace() => line.words.extend(word.take()),
                (c, _) => word.get_or_insert_default().push(c),
            }
        }
        line.words.push(word.unwrap_or_default());
        line
    }

    /// All words; the last one is being typed.
    pub(super) fn words(&self) -> &[String] {
        &self.words
    }

    /// The word that is being typed.
    pub(super) fn current(&self) -> &str {
        self.words.last().map(String::as_str).unwrap_or_default()
    }

    /// How much of the word bash keeps by itself: it breaks words at some characters and replaces only what follows
    /// the last of them. Inside quotes it does not.
    pub(super) fn kept(&self, breaks: &str) -> usize {
        let is_break = |c: char| breaks.contains(c) && !c.is_whitespace() && !matches!(c, '\'' | '"');
        if self.open.is_some() { 0 } else { self.current().rfind(is_break).map_or(0, |at| at + 1) }
    }

    /// A candidate as bash is to insert it: outside quotes, what means something to it gets a backslash.
    pub(super) fn quoted(&self, value: &str) -> String {
        if self.open.is_some() {
            return value.to_owned();
        }
        let is_plain = |c: char| c.is_alphanumeric() || "_-./=:,+@%^".contains(c);
        value.chars().flat_map(|c| (!is_plain(c)).then_some('\\').into_iter().chain([c])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Line {
        let environment = [("HOME", "/home/x"), ("CTL", "a b.yml")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Line::read(text, &environment)
    }

    #[test]
    fn words_as_the_shell_would_see_them() {
        assert_eq!(read("a  b").words(), ["a", "b"]);
        assert_eq!(read("a b ").words(), ["a", "b", ""]);
        assert_eq!(read("").words(), [""]);
        assert_eq!(read(r#"a 'b c' "d \" e" f\ g "#).words(), ["a", "b c", "d \" e", "f g", ""]);
        assert_eq!(
            read("a -c ~/x.yml -c=~ $CTL \"${CTL}\" '$CTL'").words()[2..],
            ["/home/x/x.yml", "-c=~", "a b.yml", "a b.yml", "$CTL"]
        );
        assert_eq!(read("a 'open wo").current(), "open wo");
        assert_eq!(read("a \\").words(), ["a", ""]);
    }

    #[test]
    fn what_bash_keeps_and_wants_quoted() {
        let breaks = " \t\n\"'><=;|&(:";
        assert_eq!(read("x --candidate=pg").kept(breaks), "--candidate=".len());
        assert_eq!(read("x -d etcd3://h:23").kept(breaks), "etcd3://h:".len());
        assert_eq!(read("x 'a=b").kept(breaks), 0);
        assert_eq!(read("x a=b").kept(""), 0);
        assert_eq!(read("x ").quoted("a b$'c"), "a\\ b\\$\\'c");
        assert_eq!(read("x 'a").quoted("a b"), "a b");
    }
}
