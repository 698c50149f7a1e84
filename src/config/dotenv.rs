//! Dotenv files. The syntax is that of the crate dotenvy, plus what godotenv 1.5.1 also accepts (`NAME: value`, spaces
//! in unquoted values). Neither limits the length of expanded variables, so devport has its own parser. Errors name a
//! line and never a value.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use crate::config::environment::Variables;
use crate::config::expand::plain_name;
use crate::error::{Error, Result, reason};
use crate::os::file::read_regular;

/// The largest file in bytes. `execve(2)` would not accept more.
const LARGEST: u64 = 1024 * 1024;
/// The most bytes of all values of one file: `${NAME}` could double them with every line.
const BUDGET: usize = 1024 * 1024;

/// Reads the text of a dotenv file.
///
/// # Errors
/// [`Error::InvalidFile`] if it is not a regular file, cannot be read, is over 1 MiB, or is not UTF-8.
pub(super) fn read(path: &Path) -> Result<String> {
    text_of(path, "env file", read_regular)
}

/// Returns the variables of a dotenv file with this text, in order. `${NAME}` is the value from an earlier line, else
/// from `environment`.
///
/// # Errors
/// [`Error::InvalidFile`] with `path` if it does not parse, or its values exceed 1 MiB in total.
pub(super) fn variables(path: &Path, text: &str, environment: &Variables) -> Result<Vec<(String, String)>> {
    parse(text, environment).map_err(|(line, why)| Error::InvalidFile {
        path: path.to_owned(),
        line: Some(line),
        why: why.into(),
        hint: (why != TOO_LARGE)
            .then(|| "write NAME=value, with quotes around a value that has blanks or # in it".into()),
    })
}

/// Reads the text of a user's file. `read` takes the path and a limit in bytes.
///
/// # Errors
/// [`Error::InvalidFile`] if it cannot be read, is over 1 MiB, or is not UTF-8.
pub(super) fn text_of(path: &Path, what: &str, read: fn(&Path, u64) -> io::Result<Vec<u8>>) -> Result<String> {
    let invalid = |line, why: String, hint: &str| Error::InvalidFile {
        path: path.to_owned(),
        line,
        why,
        hint: Some(hint.into()),
    };
    let bytes = read(path, LARGEST).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => {
            invalid(None, format!("this {what} is larger than 1 MiB"), "is it the right file?")
        }
        _ => invalid(
            None,
            format!("could not read this {what}: {}", reason(&error)),
            "check its path and who may read it",
        ),
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.split(|byte| *byte == b'\n').count();
        invalid(Some(line), "this line is not UTF-8".into(), "save the file as UTF-8")
    })
}

/// Parses the text of a dotenv file. The error is a line, from 1, and the problem.
fn parse(text: &str, environment: &Variables) -> std::result::Result<Vec<(String, String)>, (usize, &'static str)> {
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let mut parser = Parser { rest: &text, known: HashMap::new(), left: BUDGET, depth: 0 };
    parser.known.extend(environment.iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    let mut variables = Vec::new();
    loop {
        parser.rest = parser.rest.trim_start();
        if parser.rest.is_empty() {
            return Ok(variables);
        }
        if parser.rest.starts_with('#') {
            parser.skip_line();
            continue;
        }
        let begin = text.len() - parser.rest.len();
        let (name, value) = parser.assignment().map_err(|why| (text[..begin].split('\n').count(), why))?;
        parser.left -= value.len();
        parser.known.insert(name.clone(), value.clone());
        variables.push((name, value));
    }
}

/// The result of a step of the parser; the error is the problem.
type Parsed<T> = std::result::Result<T, &'static str>;

/// A dotenv file that is being parsed.
struct Parser<'a> {
    /// The text that is not parsed yet.
    rest: &'a str,
    /// The values for `${NAME}`.
    known: HashMap<String, String>,
    /// How many bytes the remaining values may have.
    left: usize,
    /// How many defaults the one that is being parsed is in.
    depth: usize,
}

impl Parser<'_> {
    /// Parses `NAME=value`, `NAME: value` or `export NAME=value`.
    fn assignment(&mut self) -> Parsed<(String, String)> {
        let mut name = self.name()?;
        if name == "export" && !self.rest.starts_with(['=', ':']) {
            name = self.name()?;
        }
        self.rest = self.rest.strip_prefix(['=', ':']).ok_or("this line has no = after the name")?;
        self.skip_blanks();
        let value = self.value()?;
        if value.contains('\0') {
            return Err("a variable contains a NUL byte");
        }
        Ok((name, value))
    }

    /// Parses a name and the spaces after it.
    fn name(&mut self) -> Parsed<String> {
        let is_part = |c: char| c == '_' || c == '.' || c.is_ascii_alphanumeric();
        let (name, rest) = split_where(self.rest, |c| !is_part(c));
        if name.is_empty() {
            return Err("this line does not begin with a name of letters, digits, _ and .");
        }
        self.rest = rest;
        self.skip_blanks();
        Ok(name.to_owned())
    }

    /// Parses a value up to the end of its line or a comment: a `#` after a space. As in a shell, any part of it may be
    /// quoted.
    fn value(&mut self) -> Parsed<String> {
        let mut value = String::new();
        let mut blanks = String::new();
        let mut follows_blank = true;
        while let Some(c) = self.next() {
            match c {
                '\n' => break,
                '#' if follows_blank => {
                    self.skip_line();
                    break;
                }
                blank if blank.is_whitespace() => {
                    blanks.push(blank);
                    follows_blank = true;
                    continue;
                }
                _ => {}
            }
            follows_blank = false;
            value.push_str(&std::mem::take(&mut blanks));
            match c {
                '\'' => self.single_quoted(&mut value)?,
                '"' => self.double_quoted(&mut value)?,
                other => self.unquoted(other, &mut value)?,
            }
            if value.len() > self.left {
                return Err(TOO_LARGE);
            }
        }
        Ok(value)
    }

    /// Parses up to the next `'` without escapes. A `'` after a backslash does not end the quote.
    fn single_quoted(&mut self, value: &mut String) -> Parsed<()> {
        while let Some(c) = self.next() {
            if c == '\'' {
                return Ok(());
            }
            value.push(c);
            if c == '\\' {
                value.extend(self.next());
            }
        }
        Err(OPEN_QUOTE)
    }

    /// Parses up to the next `"`, with escapes and `$NAME`.
    fn double_quoted(&mut self, value: &mut String) -> Parsed<()> {
        while let Some(c) = self.next() {
            if c == '"' {
                return Ok(());
            }
            self.unquoted(c, value)?;
        }
        Err(OPEN_QUOTE)
    }

    /// Parses one character, which may begin an escape or a `$NAME`.
    fn unquoted(&mut self, c: char, value: &mut String) -> Parsed<()> {
        match c {
            '\\' => self.escape(value),
            '$' => self.substitute(value)?,
            other => value.push(other),
        }
        Ok(())
    }

    /// Parses the character after a backslash. A backslash that escapes nothing is kept.
    fn escape(&mut self, value: &mut String) {
        let escaped = match self.rest.chars().next() {
            Some(c @ ('\\' | '\'' | '"' | '$' | ' ')) => c,
            Some('n') => '\n',
            Some('r') => '\r',
            _ => return value.push('\\'),
        };
        value.push(escaped);
        self.next();
    }

    /// Parses the name after a `$`: `NAME`, `{NAME}` or `{NAME:-default}`. An unknown name expands to nothing. A `$`
    /// before anything else is kept.
    fn substitute(&mut self, value: &mut String) -> Parsed<()> {
        let (name, rest) = if let Some(braced) = self.rest.strip_prefix('{') {
            if let Some((name, rest)) =
                plain_name(braced).and_then(|(name, rest)| Some((name, rest.strip_prefix(":-")?)))
            {
                self.rest = rest;
                return self.substitute_or_default(name, value);
            }
            let (name, _) = split_where(braced, |c| c == '}' || c == '\n');
            let rest = braced[name.len()..].strip_prefix('}').ok_or(OPEN_BRACE)?;
            (name, rest)
        } else {
            split_where(self.rest, |c| c != '_' && !c.is_ascii_alphanumeric())
        };
        if name.is_empty() && rest.len() == self.rest.len() {
            value.push('$');
            return Ok(());
        }
        self.rest = rest;
        self.push_value(name, value)
    }

    /// Parses a default and its `}`. Appends the value of the variable, or the default if it is unset or empty.
    fn substitute_or_default(&mut self, name: &str, value: &mut String) -> Parsed<()> {
        let mut default = String::new();
        self.depth += 1;
        if self.depth > DEEPEST_DEFAULT {
            return Err("the defaults of this line nest too deep");
        }
        loop {
            match self.next() {
                Some('}') => break,
                Some('\n') | None => return Err(OPEN_BRACE),
                Some(c) => self.unquoted(c, &mut default)?,
            }
            if default.len() > self.left {
                return Err(TOO_LARGE);
            }
        }
        self.depth -= 1;
        if self.known.get(name).is_some_and(|known| !known.is_empty()) {
            return self.push_value(name, value);
        }
        if value.len().saturating_add(default.len()) > self.left {
            return Err(TOO_LARGE);
        }
        value.push_str(&default);
        Ok(())
    }

    /// Appends the value of a variable, if there is one.
    fn push_value(&self, name: &str, value: &mut String) -> Parsed<()> {
        let known = self.known.get(name).map_or("", String::as_str);
        if value.len().saturating_add(known.len()) > self.left {
            return Err(TOO_LARGE);
        }
        value.push_str(known);
        Ok(())
    }

    /// Returns the next character.
    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        Some(c)
    }

    /// Skips white space within the line.
    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches(|c: char| c != '\n' && c.is_whitespace());
    }

    /// Skips the rest of the line.
    fn skip_line(&mut self) {
        self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
    }
}

/// How deep `${NAME:-default}` may nest. The parser calls itself for each level, and no file needs more than a few.
const DEEPEST_DEFAULT: usize = 32;

/// The error for a brace that is not closed.
const OPEN_BRACE: &str = "this line has ${ without }";

/// The error for a quote that is not closed.
const OPEN_QUOTE: &str = "this line opens a quote that is never closed";

/// The error for the line that exceeds the budget.
const TOO_LARGE: &str = "up to this line, the values of this file have more than 1 MiB in total";

/// Splits a text before the first character that `ends` accepts, or at its end.
fn split_where(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Parses a file with `CALLER=outside` and `A=caller` in the environment.
    fn parsed(text: &str) -> std::result::Result<Vec<(String, String)>, (usize, &'static str)> {
        let mut environment = Variables::default();
        environment.set("CALLER", "outside");
        environment.set("A", "caller");
        parse(text, &environment)
    }

    /// Returns the value of the last variable of a file.
    fn value(text: &str) -> String {
        parsed(text).unwrap_or_else(|error| panic!("{text:?}: {error:?}")).pop().unwrap().1
    }

    #[test]
    fn the_common_syntax_is_read() {
        let text = "# comment\nexport A=1\nB='raw $A'\nC=\"x\\ny ${A}\"\nD=a#b\nE=a #c\nF=\n\n";
        let pairs = parsed(text).unwrap();
        let expected = [("A", "1"), ("B", "raw $A"), ("C", "x\ny 1"), ("D", "a#b"), ("E", "a"), ("F", "")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn values_are_those_of_dotenvy_or_else_of_godotenv() {
        for (text, expected) in [
            ("K=s\\ ix", "s ix"),
            ("K=     ", ""),
            ("K=   # foo", ""),
            ("K  =\"blanks before =\"", "blanks before ="),
            ("K=  'a'\"b\"c", "abc"),
            ("export=x", "x"),
            ("export   K=1 ", "1"),
            ("K='a\nb'\n", "a\nb"),
            ("K=\"a\r\nb\"\r\n", "a\nb"),
            ("K=\"a # \\\"b\\\" \\$A\"", "a # \"b\" $A"),
            ("K='a # \\n'", "a # \\n"),
            ("K='it\\'s'", "it\\'s"),
            ("\u{feff}K=1", "1"),
            ("K: v", "v"),
            ("K=fo ur  #c", "fo ur"),
            ("K=http://x/#a", "http://x/#a"),
            ("1K.x=1", "1"),
            ("K=\\d+\\", "\\d+\\"),
            ("K=\"a\\rb\\d\"", "a\rb\\d"),
            ("K=a\u{a0}", "a"),
        ] {
            assert_eq!(value(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_reference_is_to_the_lines_before_and_then_to_the_environment() {
        for (text, expected) in [
            ("K=$CALLER-${CALLER}", "outside-outside"),
            ("K=$A", "caller"),
            ("A=1\nK=$A", "1"),
            ("A_B=1\nK=$A_B.${A_B}", "1.1"),
            ("K=[$UNSET${UNSET}]", "[]"),
            ("K=$UNSET", ""),
            ("K=${LATER}\nLATER=1\nK=${K}x", "x"),
            ("K=5$ $.$", "5$ $.$"),
            ("K='$A'", "$A"),
            ("A='$CALLER'\nK=$A", "$CALLER"),
            ("K=${A:-x}${UNSET:-y z}", "callery z"),
            ("E=\nK=${E:-$CALLER-${UNSET:-\\$}}", "outside-$"),
            ("K=\"${UNSET:-a b}\"", "a b"),
        ] {
            assert_eq!(value(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_error_names_the_line_and_not_what_is_in_it() {
        for (text, line) in [
            ("A=1\nB='hunter2\n", 2),
            ("A=1\n\nhunter2 and more\n", 3),
            ("A='1\n2'\nB=\"hunter2\nC=1\n", 3),
            ("#\n=hunter2", 2),
            ("export hunter2", 1),
            ("A=${hunter2\n}", 1),
            ("A=${X:-hunter2\n}", 1),
            ("A=1\nhunter2\0=1", 2),
            ("A=1\nB=hunter2\0", 2),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.0 == line && !error.1.contains("hunter2"), "{text:?}: {error:?}");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.env");
        let error = variables(&path, "A=1\nhunter2\n", &Variables::default()).unwrap_err().to_string();
        assert!(error.contains("x.env:2: ") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_file_cannot_expand_past_its_budget() {
        let bomb = |levels: u32| {
            let line = |level: u32| format!("A{level}={}\n", format!("${{A{}}}", level - 1).repeat(10));
            format!("A0={}\n{}", "x".repeat(60), (1..=levels).map(line).collect::<String>())
        };
        assert_eq!(value(&bomb(4)).len(), 600_000);
        assert_eq!(parsed(&bomb(5)).unwrap_err().0, 6);
        assert_eq!(parsed(&bomb(9)).unwrap_err().0, 6);
        assert!(parsed(&bomb(9)).unwrap_err().1.contains("1 MiB in total"));
        // Values from the environment count too.
        let mut environment = Variables::default();
        environment.set("BIG", "x".repeat(100_000));
        assert_eq!(parse(&"K=\"$BIG\"\n".repeat(20), &environment).unwrap_err().0, 11);
    }

    #[test]
    fn nested_defaults_are_limited() {
        assert_eq!(value(&format!("K={}x{}", "${U:-".repeat(32), "}".repeat(32))), "x");
        assert!(parsed(&format!("K={}", "${U:-".repeat(100_000))).unwrap_err().1.contains("too deep"));
    }

    #[test]
    fn only_a_regular_file_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo.env");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("fifo.env: could not read this env file: not a regular file"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[A-Z=\"'$\\\\{}# \n\u{e9}]{0,80}") {
            let _ = parsed(&text);
        }

        #[test]
        fn no_text_expands_past_the_budget(lines in proptest::collection::vec("([A-D]=)?([\"']?(\\$[A-E]|\\$\\{[A-E]\\}|[x#\\\\ ]){0,40}[\"']?)", 0..40)) {
            let text = format!("E={}\n{}", "y".repeat(1000), lines.join("\n"));
            if let Ok(variables) = parsed(&text) {
                prop_assert!(variables.iter().map(|(_, value)| value.len()).sum::<usize>() <= BUDGET);
            }
        }

        #[test]
        fn a_value_in_quotes_comes_back(value in "[^\0\r]{0,40}") {
            let mut quoted = value.clone();
            for special in ['\\', '"', '$'] {
                quoted = quoted.replace(special, &format!("\\{special}"));
            }
            prop_assert_eq!(parsed(&format!("K=\"{quoted}\" # c")).unwrap(), vec![("K".to_owned(), value)]);
        }
    }
}
