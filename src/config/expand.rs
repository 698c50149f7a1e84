//! Expands `$NAME` in the words of a command and in the values of `env`.

/// Replaces `$NAME` and `${NAME}` by their values, unset variables by nothing, `${NAME:-default}` by the default if the
/// variable is unset or empty, and `$$` by `$`. A default may contain all of these. Any other `$` is kept, such as `${`
/// without a name or an end: there is no shell, and it may be syntax of the command.
pub(crate) fn expand<'a>(word: &str, value_of: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut expansion = Expansion { text: String::with_capacity(word.len()), open: Vec::new() };
    let mut rest = word;
    while let Some(at) = rest.find(['$', '}']) {
        let (before, special) = rest.split_at(at);
        expansion.text.push_str(before);
        rest = if let Some(tail) = special.strip_prefix('}') {
            expansion.close();
            tail
        } else if let Some(tail) = special.strip_prefix("$$") {
            expansion.text.push('$');
            tail
        } else if let Some((name, tail)) = braced_name(&special[1..]).or_else(|| plain_name(&special[1..])) {
            expansion.text.push_str(value_of(name).unwrap_or_default());
            tail
        } else if let Some((name, tail)) = name_with_default(&special[1..]) {
            let start = expansion.text.len();
            expansion.open.push(OpenDefault { start, name, value: value_of(name).filter(|value| !value.is_empty()) });
            tail
        } else {
            expansion.text.push('$');
            &special[1..]
        };
    }
    expansion.text.push_str(rest);
    expansion.finish()
}

/// A text that is being expanded.
struct Expansion<'w, 'v> {
    text: String,
    /// The defaults whose end is not read yet, the innermost last. A list and no recursion: a word may be a megabyte of
    /// `${A:-`.
    open: Vec<OpenDefault<'w, 'v>>,
}

/// A `${NAME:-` whose `}` is not read yet.
struct OpenDefault<'w, 'v> {
    /// Where the default begins in the expanded text.
    start: usize,
    name: &'w str,
    /// The value of the variable; `None` if it is unset or empty.
    value: Option<&'v str>,
}

impl Expansion<'_, '_> {
    /// Ends the innermost default; a `}` outside of one is kept.
    fn close(&mut self) {
        match self.open.pop() {
            Some(OpenDefault { start, value: Some(value), .. }) => {
                self.text.truncate(start);
                self.text.push_str(value);
            }
            Some(OpenDefault { value: None, .. }) => {}
            None => self.text.push('}'),
        }
    }

    /// Returns the text, with every `${NAME:-` that has no end as it was.
    fn finish(self) -> String {
        let mut finished = String::with_capacity(self.text.len());
        let mut from = 0;
        for OpenDefault { start, name, .. } in self.open {
            finished.push_str(&self.text[from..start]);
            finished.extend(["${", name, ":-"]);
            from = start;
        }
        finished.push_str(&self.text[from..]);
        finished
    }
}

/// Parses `{NAME}` at the start of the text; returns the name and the rest.
fn braced_name(text: &str) -> Option<(&str, &str)> {
    let (name, tail) = plain_name(text.strip_prefix('{')?)?;
    Some((name, tail.strip_prefix('}')?))
}

/// Parses `{NAME:-` at the start of the text; returns the name and the rest.
fn name_with_default(text: &str) -> Option<(&str, &str)> {
    let (name, tail) = plain_name(text.strip_prefix('{')?)?;
    Some((name, tail.strip_prefix(":-")?))
}

/// Parses `NAME` at the start of the text; returns the name and the rest.
pub(super) fn plain_name(text: &str) -> Option<(&str, &str)> {
    if !text.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic()) {
        return None;
    }
    let end = text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    Some(text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_expanded_as_documented() {
        let value_of = |name: &str| match name {
            "PORT" => Some("19002"),
            "A_1" => Some("$PORT"),
            "EMPTY" => Some(""),
            _ => None,
        };
        for (word, expanded) in [
            ("$PORT", "19002"),
            ("${PORT}x", "19002x"),
            ("é$PORTé", "é19002é"),
            ("$$PORT", "$PORT"),
            ("$$$PORT", "$19002"),
            ("$UNSET", ""),
            ("a${UNSET}b", "ab"),
            ("$A_1", "$PORT"),
            ("$", "$"),
            ("5$", "5$"),
            ("$1 $(date) ${} ${ ${a-b} ${b:+c}", "$1 $(date) ${} ${ ${a-b} ${b:+c}"),
            ("${PORT:-3000}", "19002"),
            ("x${UNSET:-3000}y", "x3000y"),
            ("${EMPTY:-d}${UNSET:-}", "d"),
            ("${UNSET:-http://h:$PORT/${A_1}}", "http://h:19002/$PORT"),
            ("${UNSET:-${NOT:-${PORT}}}}", "19002}"),
            ("${PORT:-${UNSET:-x}}", "19002"),
            ("${UNSET:-$$PORT}", "$PORT"),
            ("${UNSET:-a ${PORT} ${NOT:-b", "${UNSET:-a 19002 ${NOT:-b"),
            ("a}b}", "a}b}"),
            ("--port=$PORT,$PORT", "--port=19002,19002"),
            ("", ""),
        ] {
            assert_eq!(expand(word, value_of), expanded, "{word:?}");
        }
    }

    #[test]
    fn a_long_word_is_expanded_in_linear_time() {
        let word = "${A:-".repeat(200_000);
        assert_eq!(expand(&word, |_| None), word);
        assert_eq!(expand(&format!("{word}{}", "}".repeat(200_000)), |_| Some("x")), "x");
    }

    proptest! {
        #[test]
        fn no_word_panics(word in "(\\$|\\{|\\}|:-|A|é|\\$\\{A:-){0,30}") {
            let _ = expand(&word, |_| Some("$A"));
        }

        #[test]
        fn doubled_dollars_come_through_any_word(word in "[^$]*(\\$[^$]*){0,5}") {
            prop_assert_eq!(expand(&word.replace('$', "$$"), |_| Some("x")), word);
        }
    }
}
