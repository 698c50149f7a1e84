//! Commands as lists of words: their program, and the arguments that set their port.

use crate::frameworks::framework::{Framework, Reads};

/// Programs that run the program that follows.
const LAUNCHERS: [&str; 26] = [
    "npx",
    "pnpx",
    "bunx",
    "npm",
    "pnpm",
    "yarn",
    "bun",
    "node",
    "nodejs",
    "deno",
    "uv",
    "uvx",
    "poetry",
    "pipenv",
    "pdm",
    "hatch",
    "rye",
    "bundle",
    "ruby",
    "env",
    "cross-env",
    "dotenv",
    "exec",
    "time",
    "nice",
    "sudo",
];
/// Subcommands of launchers that run the program that follows.
const RUN: [&str; 5] = ["run", "exec", "x", "dlx", "tool"];

/// Returns the last part of a path.
pub(super) fn basename(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// Returns the name of a program without the extension of a Node.js script, and without the colon of a process title.
pub(super) fn program_name(word: &str) -> &str {
    let name = basename(word).trim_end_matches(':');
    [".js", ".mjs", ".cjs"].iter().find_map(|extension| name.strip_suffix(extension)).unwrap_or(name)
}

/// Returns whether a word sets a variable: `NAME=value`.
fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
            && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
    })
}

/// Returns the index of the program that a command runs in the end, after launchers such as `npx` and `uv run`.
pub(super) fn program(words: &[String]) -> Option<usize> {
    let mut follows_launcher = false;
    words.iter().position(|word| {
        let name = basename(word);
        if word.starts_with('-') || is_assignment(word) || (follows_launcher && RUN.contains(&name)) {
            return false;
        }
        let is_launcher = LAUNCHERS.contains(&name) || name.starts_with("python");
        follows_launcher |= is_launcher;
        !is_launcher
    })
}

/// Returns the simple commands of a line for a shell, each as its words. Those that do not parse are missing.
pub(super) fn simple_commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![String::new()];
    let (mut quote, mut is_escaped) = (None, false);
    for c in line.chars() {
        let is_quoted = quote.is_some() || is_escaped;
        is_escaped = c == '\\' && !is_escaped && quote != Some('\'');
        if matches!(c, '\'' | '"') && (quote == Some(c) || !is_quoted) {
            quote = if quote.is_none() { Some(c) } else { None };
        }
        if matches!(c, '&' | '|' | ';' | '\n') && !is_quoted {
            commands.push(String::new());
        } else if let Some(command) = commands.last_mut() {
            command.push(c);
        }
    }
    let words = commands.iter().filter_map(|command| shell_words::split(command).ok());
    words.filter(|words| !words.is_empty()).collect()
}

impl Framework {
    /// Returns whether its port is an argument without an option.
    fn is_positional(&self) -> bool {
        self.arguments.first().is_some_and(|argument| !argument.starts_with('-'))
    }

    /// Returns a command's words without those that set the port, in whatever form.
    pub(super) fn without_port(&self, words: &[String]) -> Vec<String> {
        let mut kept: Vec<String> = Vec::new();
        let mut words = words.iter().peekable();
        while let Some(word) = words.next() {
            let sets = |option: &&str| match word.strip_prefix(option) {
                Some(value) if option.len() == 2 => !value.is_empty() && value.chars().all(|c| c.is_ascii_digit()),
                Some(value) => value.starts_with('='),
                None => false,
            };
            let assigns = match self.reads {
                Reads::Variable(name) => word.strip_prefix(name).is_some_and(|value| value.starts_with('=')),
                Reads::Nothing | Reads::AppCode => false,
            };
            // A bare `$PORT` is an attempt to pass the port.
            let is_bare = is_port_variable(word) && kept.last().is_none_or(|before| !before.starts_with('-'));
            if self.port_options.contains(&word.as_str()) {
                words.next_if(|value| !value.starts_with('-'));
            } else {
                let is_option = self.port_options.iter().any(sets);
                // A quoted `$PORT` that the caller's shell replaced is an empty word.
                let is_argument = self.is_positional() && (is_port(word) || word.is_empty());
                if !(is_option || is_argument || assigns || is_bare) {
                    kept.push(word.clone());
                }
            }
        }
        kept
    }

    /// Returns the arguments that make it listen on the port in a variable, without those that the words have already.
    pub(super) fn port_arguments(&self, words: &[String], variable: &str) -> Vec<String> {
        let set: Vec<String> =
            self.arguments.iter().map(|argument| argument.replace("$PORT", &format!("${variable}"))).collect();
        let is_strict = self.strict.first().is_some_and(|option| words.iter().any(|word| word == option));
        let strict = if is_strict { &[] } else { self.strict };
        set.into_iter().chain(strict.iter().map(|&argument| argument.to_owned())).collect()
    }
}

/// Returns whether an argument is a port, or an address with one.
fn is_port(word: &str) -> bool {
    let port = word.rsplit_once(':').map_or(word, |(_, port)| port);
    is_port_variable(port) || (!port.is_empty() && port.chars().all(|c| c.is_ascii_digit()))
}

/// Returns whether a word is a variable with a port, such as `$PORT` or `${WEB_PORT}`.
fn is_port_variable(word: &str) -> bool {
    word.strip_prefix('$').is_some_and(|name| name.trim_end_matches('}').ends_with("PORT"))
}

/// Joins words to a line for the script of a `package.json`, in which a shell replaces variables.
pub(super) fn join_for_shell(words: &[String]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "$_-./:=@%+,".contains(c);
    let quote =
        |word: &String| if word.chars().all(is_plain) { word.clone() } else { shell_words::quote(word).into_owned() };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frameworks::recognize;

    #[test]
    fn the_program_is_found_behind_what_launches_it() {
        for (line, name) in [
            ("vite --port 1", "vite"),
            ("npx --yes vite", "vite"),
            ("FOO=1 cross-env PORT=3000 next dev", "next"),
            ("node --inspect /p/node_modules/vite/bin/vite.js", "vite"),
            ("python3.12 -m http.server 8000", "http.server"),
            ("uv run flask run", "flask"),
            ("bundle exec rails s", "rails"),
            ("/venv/bin/python /venv/bin/uvicorn main:app", "uvicorn"),
            ("gunicorn: master [app:app]", "gunicorn"),
        ] {
            let words = shell_words::split(line).unwrap();
            assert_eq!(program(&words).map(|index| program_name(&words[index])), Some(name), "{line}");
        }
        assert_eq!(program(&["npm".into(), "--".into()]), None);
    }

    #[test]
    fn a_line_is_split_at_operators_outside_quotes() {
        let commands = simple_commands(r#"tsc -b && A='x;y' vite "a && b" | tee \& log; "#);
        assert_eq!(commands, [vec!["tsc", "-b"], vec!["A=x;y", "vite", "a && b"], vec!["tee", "&", "log"]]);
        assert_eq!(simple_commands("vite 'x"), [[""; 0]; 0]);
    }

    #[test]
    fn every_form_of_a_port_is_taken_out() {
        for (line, rest) in [
            ("vite --port 3000 --host", "vite --host"),
            ("vite --port=3000", "vite"),
            ("vite $PORT", "vite"),
            ("uvicorn $APP --port ${WEB_PORT}", "uvicorn $APP"),
            ("django-admin runserver $HOST:$PORT", "django-admin runserver"),
            ("vite -p3000 --workers 4", "vite --workers 4"),
            ("PORT=3000 next dev -p 3000", "next dev"),
            ("python manage.py runserver --noreload 0.0.0.0:8000", "python manage.py runserver --noreload"),
            ("python3 -m http.server 8000 --bind 127.0.0.1", "python3 -m http.server --bind 127.0.0.1"),
            ("gunicorn -b :8000 -w 4 app:app", "gunicorn -w 4 app:app"),
        ] {
            let words = shell_words::split(line).unwrap();
            let framework = recognize::of_words(&words, None).unwrap();
            assert_eq!(framework.without_port(&words).join(" "), rest, "{line}");
        }
    }
}
