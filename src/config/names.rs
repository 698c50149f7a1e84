//! The names of stacks, services and tmux sessions that a file may have.

use crate::text::shorten;

/// The most characters in the name of a stack or a service. A key has both and the name of a checkout, in 128 bytes.
pub(super) const LONGEST_NAME: usize = 40;

/// Checks the name of a stack.
pub(super) fn stack_name(name: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.len() <= LONGEST_NAME && !name.is_empty() && !name.starts_with('-') && name.chars().all(is_allowed) {
        return Ok(name.to_owned());
    }
    let suggestion = suggestion(name, |c| Some(c.to_ascii_lowercase()).filter(|c| is_allowed(*c)));
    Err(format!(
        "`{}` cannot be the name of a stack: use a-z, 0-9 and -, at most {LONGEST_NAME} characters{suggestion}",
        shorten(name)
    ))
}

/// Checks the name of a service.
pub(super) fn service_name(name: &str) -> Result<(), String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name == "devport" {
        return Err("a service cannot be called devport: DEVPORT_URL has another meaning".into());
    }
    let is_valid = name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_allowed);
    if is_valid && name.len() <= LONGEST_NAME {
        return Ok(());
    }
    let suggestion = suggestion(name, |c| Some(c).filter(|c| is_allowed(*c)));
    Err(format!(
        "`{}` cannot be the name of a service: use letters, digits, - and _, at most {LONGEST_NAME} characters{suggestion}",
        shorten(name)
    ))
}

/// Checks the name of a tmux session: tmux gives `:` and `.` a meaning.
pub(super) fn session_name(name: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.len() <= LONGEST_NAME && !name.starts_with('-') && name.chars().all(is_allowed) {
        return Ok(name.to_owned());
    }
    Err(format!(
        "`{}` cannot be the name of a tmux session: use letters, digits, - and _, at most {LONGEST_NAME} characters",
        shorten(name)
    ))
}

/// Returns `, such as …` with the nearest valid name; empty if there is none. `convert` returns `None` for a character
/// that becomes `-`.
fn suggestion(name: &str, convert: impl Fn(char) -> Option<char>) -> String {
    let valid: String = name.chars().take(LONGEST_NAME).map(|c| convert(c).unwrap_or('-')).collect();
    match valid.trim_matches(['-', '_']) {
        "" | "devport" => String::new(),
        valid => format!(", such as `{valid}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::stack_file::tests::assert_mistakes;

    #[test]
    fn a_name_that_cannot_be_used_is_refused_with_a_similar_one() {
        assert_mistakes(&[
            ("  my app: x\n", 2, "such as `my-app`"),
            ("  -a: x\n", 2, "such as `a`"),
            ("  devport: x\n", 2, "cannot be called devport"),
        ]);
        assert!(service_name(&"x".repeat(LONGEST_NAME)).is_ok() && service_name(&"x".repeat(41)).is_err());
        assert!(stack_name(&"x".repeat(LONGEST_NAME)).is_ok() && stack_name(&"x".repeat(41)).is_err());
    }
}
