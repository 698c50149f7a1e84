//! Recognizes commands that only a shell understands, because devport runs none.

/// Words that a shell executes itself.
const BUILTINS: [&str; 11] = [".", "cd", "eval", "exec", "export", "for", "if", "set", "source", "ulimit", "while"];

/// Returns what to type instead of a command that could not be executed, if it seems meant for a shell: a whole
/// command line in one word, an assignment before the command, or a word that a shell executes itself.
pub(crate) fn shell_hint(command: &[String]) -> Option<String> {
    let (first, rest) = command.split_first()?;
    let is_line = rest.is_empty() && first.contains(char::is_whitespace);
    let is_assignment = first.split_once('=').is_some_and(|(name, _)| is_name(name));
    if !is_line && !is_assignment && !BUILTINS.contains(&first.as_str()) {
        return None;
    }
    // The words of a list have lost their quotes to the user's shell.
    let line =
        if is_line { first.clone() } else { command.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ") };
    let shell = format!("devport runs no shell; run one with `-- sh -c {}`", shell_words::quote(&line));
    Some(match (first.as_str(), rest) {
        _ if is_line && is_plain(&line) => format!("{shell}, or drop the quotes: `-- {line}`"),
        (assignment, [_, ..]) if is_assignment => {
            format!("{shell}, or set the variable: `--env {} -- {}`", quote(assignment), shell_words::join(rest))
        }
        ("cd", [directory]) => format!("{shell}, or use `--cwd {}`", shell_words::quote(directory)),
        _ => shell,
    })
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
        && text.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
}

/// Returns whether a line means the same without a shell.
fn is_plain(line: &str) -> bool {
    let first = line.split_whitespace().next().unwrap_or_default();
    !first.contains('=')
        && !BUILTINS.contains(&first)
        && line.chars().all(|c| c.is_ascii_alphanumeric() || " -_./:=@,+".contains(c))
}

/// Quotes a word for a shell. The quotes of an assignment go around its value.
fn quote(word: &str) -> String {
    match word.split_once('=') {
        Some((name, value)) if is_name(name) => format!("{name}={}", shell_words::quote(value)),
        _ => shell_words::quote(word).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(command: &[&str]) -> Option<String> {
        shell_hint(&command.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_command_for_a_shell_gets_the_line_to_type() {
        for (command, line) in [
            (&["npm run dev"][..], "`-- sh -c 'npm run dev'`, or drop the quotes: `-- npm run dev`"),
            (&["cd web && npm run dev"], "`-- sh -c 'cd web && npm run dev'`"),
            (&["FOO=1 npm run dev"], "`-- sh -c 'FOO=1 npm run dev'`"),
            (&["FOO=1", "npm", "run"], "`-- sh -c 'FOO=1 npm run'`, or set the variable: `--env FOO=1 -- npm run`"),
            (&["cd", "web"], "`-- sh -c 'cd web'`, or use `--cwd web`"),
            (&["source", ".venv/bin/activate"], "`-- sh -c 'source .venv/bin/activate'`"),
        ] {
            assert_eq!(hint(command).unwrap(), format!("devport runs no shell; run one with {line}"), "{command:?}");
        }
    }

    #[test]
    fn other_commands_get_no_hint() {
        for command in [&["npm", "run dev"][..], &["nosuch"], &["./a=b"], &["9=1", "x"], &[]] {
            assert_eq!(hint(command), None, "{command:?}");
        }
    }
}
