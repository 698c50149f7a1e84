//! Dotenv files. The syntax is dotenvy's; this file adds limits, and errors that name a line and no value.

use std::path::Path;

use crate::error::{Error, Result, reason};

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1024 * 1024;

/// Reads the variables of a dotenv file, in order.
///
/// # Errors
/// [`Error::InvalidFile`] if it cannot be read, is over 1 MiB, is not UTF-8, or does not parse.
pub(super) fn read(path: &Path) -> Result<Vec<(String, String)>> {
    parse(path, &text_of(path, "env file")?)
}

/// The text of a file that the user wrote.
///
/// # Errors
/// [`Error::InvalidFile`] if it cannot be read, is over 1 MiB, or is not UTF-8.
pub(super) fn text_of(path: &Path, what: &str) -> Result<String> {
    use std::io::Read;
    let invalid = |line, why: String, hint: &str| Error::InvalidFile {
        path: path.to_owned(),
        line,
        why,
        hint: Some(hint.into()),
    };
    let unreadable = |error: std::io::Error| {
        invalid(None, format!("could not read this {what}: {}", reason(&error)), "check its path and who may read it")
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LARGEST {
        return Err(invalid(None, format!("this {what} is larger than 1 MiB"), "is it the right file?"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.split(|byte| *byte == b'\n').count();
        invalid(Some(line), "this line is not UTF-8".into(), "save the file as UTF-8")
    })
}

/// Parses the text of a dotenv file.
fn parse(path: &Path, text: &str) -> Result<Vec<(String, String)>> {
    let invalid = |line, why: &str| Error::InvalidFile {
        path: path.to_owned(),
        line,
        why: why.into(),
        hint: Some("write NAME=value, with quotes around a value that has blanks or # in it".into()),
    };
    let mut variables = Vec::new();
    for item in dotenvy::from_read_iter(text.as_bytes()) {
        match item {
            Ok((name, value)) if value.contains('\0') || name.contains('\0') => {
                return Err(invalid(line_of(text, &name), "a variable contains a NUL byte"));
            }
            Ok(variable) => variables.push(variable),
            // The error holds the line itself, which may be a secret: only where it stands is told.
            Err(dotenvy::Error::LineParse(line, _)) => {
                return Err(invalid(line_of(text, &line), "this line does not parse"));
            }
            Err(_) => return Err(invalid(None, "this file does not parse")),
        }
    }
    Ok(variables)
}

/// The number of the line, from 1, at which `part` (which may span several lines) begins; `None` if it is
/// nowhere.
fn line_of(text: &str, part: &str) -> Option<usize> {
    let first = part.lines().next()?.trim_end();
    text.lines()
        .position(|line| line.trim() == first.trim())
        .or_else(|| text.lines().position(|line| line.contains(first)))
        .map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Result<Vec<(String, String)>> {
        parse(Path::new("x.env"), text)
    }

    #[test]
    fn the_usual_syntax_is_read() {
        let text = "# comment\nexport A=1\nB='raw $A'\nC=\"x\\ny ${A}\"\nD=a#b\nE=a #c\nF=\n\n";
        let pairs = parsed(text).unwrap();
        let expected = [("A", "1"), ("B", "raw $A"), ("C", "x\ny 1"), ("D", "a#b"), ("E", "a"), ("F", "")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn an_error_names_the_line_and_not_what_is_in_it() {
        let error = parsed("A=1\nB='hunter2\n").unwrap_err().to_string();
        assert!(error.starts_with("x.env:2: "), "{error}");
        let error = parsed("A=1\n\nhunter2 and more\n").unwrap_err().to_string();
        assert!(error.starts_with("x.env:3: ") && !error.contains("hunter2"), "{error}");
    }

    proptest! {
        #[test]
        fn t27_no_text_panics(text in "[A-Z=\"'$\\\\{}# \n\u{e9}]{0,80}") {
            let _ = parsed(&text);
        }
    }
}
