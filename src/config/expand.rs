//! Expands `$VAR` in the words of a command.

use std::fmt::Write as _;

/// Replaces `$VAR` and `${VAR}` by their values, unset variables by nothing, and `$$` by `$`. Any other `$` is kept,
/// such as `${` without a name or an end: there is no shell, and it may be syntax of the command.
pub(crate) fn expand<'a>(word: &str, value_of: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut expanded = String::with_capacity(word.len());
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        rest = if let Some(behind) = after.strip_prefix('$') {
            expanded.push('$');
            behind
        } else if let Some((name, behind)) = braced_name(after).or_else(|| plain_name(after)) {
            expanded.push_str(value_of(name).unwrap_or_default());
            behind
        } else {
            let _ = expanded.write_char('$');
            after
        };
    }
    expanded.push_str(rest);
    expanded
}

/// Parses `{NAME}` at the start of the text; returns the name and the rest.
fn braced_name(text: &str) -> Option<(&str, &str)> {
    let (name, behind) = text.strip_prefix('{')?.split_once('}')?;
    matches!(plain_name(name), Some((_, ""))).then_some((name, behind))
}

/// Parses `NAME` at the start of the text; returns the name and the rest.
fn plain_name(text: &str) -> Option<(&str, &str)> {
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
            ("$1 $(date) ${} ${ ${a-b} ${FOO:-d}", "$1 $(date) ${} ${ ${a-b} ${FOO:-d}"),
            ("--port=$PORT,$PORT", "--port=19002,19002"),
            ("", ""),
        ] {
            assert_eq!(expand(word, value_of), expanded, "{word:?}");
        }
    }

    proptest! {
        #[test]
        fn doubled_dollars_come_through_any_word(word in "[^$]*(\\$[^$]*){0,5}") {
            prop_assert_eq!(expand(&word.replace('$', "$$"), |_| Some("x")), word);
        }
    }
}
