//! Reads a `Procfile`: a line `name: command` for each service.

use std::collections::HashMap;

use crate::config::check::Check;
use crate::config::mistakes::Mistakes;
use crate::config::names::service_name;
use crate::config::request::Request;
use crate::config::stack::{Stack, StackService};

/// Reads the text of a Procfile. What is wrong is added to the mistakes.
pub(super) fn read(text: &str, mistakes: &mut Mistakes) -> Stack {
    let mut services: Vec<StackService> = Vec::new();
    // By variable, which `a-b` and `a_b` would share.
    let mut seen = HashMap::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some(service) = mistakes.keep(number, service(line, number)) else { continue };
        match seen.insert(service.port_variable(), number) {
            Some(first) => mistakes.add(number, format!("`{}` is the service on line {first} again", service.name)),
            None => services.push(service),
        }
    }
    Stack { services, ..Stack::default() }
}

/// Parses `name: command`.
fn service(line: &str, number: usize) -> Result<StackService, String> {
    let (name, command) = line.split_once(':').ok_or("expected a line like `web: npm run dev`")?;
    let (name, command) = (name.trim_end(), command.trim());
    service_name(name)?;
    if command.is_empty() {
        return Err(format!("`{name}` has no command"));
    }
    let mut request = Request { cmd: words(command)?, ..Request::default() };
    // By convention every process gets PORT, and only `web` listens on it.
    if name != "web" && !command.contains("PORT") {
        request.policy.ready = Some(Check::Alive);
    }
    Ok(StackService { name: name.to_owned(), line: number, request, ..StackService::default() })
}

/// Splits a command into words, or gives it to a shell if it has the syntax of one: other readers of a Procfile do so
/// with every command.
fn words(command: &str) -> Result<Vec<String>, String> {
    let is_assignment = |word: &str| word.split_once('=').is_some_and(|(name, _)| !name.is_empty());
    let has_shell_syntax = command.contains(['|', '&', ';', '<', '>', '(', ')', '`', '*', '?', '[', '~', '{', '\\']);
    if has_shell_syntax || command.split_whitespace().next().is_some_and(is_assignment) {
        // The shell expands `$NAME`, so devport must not.
        return Ok(vec!["sh".into(), "-c".into(), command.replace('$', "$$")]);
    }
    let words =
        shell_words::split(command).map_err(|error| format!("the command does not split into words: {error}"))?;
    match words.first() {
        Some(program) if program == "exec" => Ok(words[1..].to_vec()),
        _ => Ok(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;
    use proptest::prelude::*;
    use std::path::Path;

    fn parsed(text: &str) -> Result<Stack> {
        let mut mistakes = Mistakes::default();
        let stack = read(text, &mut mistakes);
        mistakes.or(Path::new("Procfile"), "", stack)
    }

    #[test]
    fn each_line_is_a_service() {
        let text = "# comment\nweb: bundle exec puma -p $PORT\n\nworker:  sidekiq -c 'a b'\r\ncss: A=1 yarn build && yarn watch $DIR\nlog: cd x; tail -f log\n";
        let services = parsed(text).unwrap().services;
        let names: Vec<_> = services.iter().map(|service| (service.name.as_str(), service.line)).collect();
        assert_eq!(names, [("web", 2), ("worker", 4), ("css", 5), ("log", 6)]);
        assert_eq!(services[0].request.cmd, ["bundle", "exec", "puma", "-p", "$PORT"]);
        assert_eq!(services[0].request.policy.ready, None);
        assert_eq!(services[1].request.cmd, ["sidekiq", "-c", "a b"]);
        assert_eq!(services[1].request.policy.ready, Some(Check::Alive));
        assert_eq!(services[2].request.cmd, ["sh", "-c", "A=1 yarn build && yarn watch $$DIR"]);
        assert_eq!(services[3].request.cmd, ["sh", "-c", "cd x; tail -f log"]);
    }

    #[test]
    fn mistakes_have_their_lines() {
        for (text, line, part) in [
            ("web\n", 1, "expected a line like"),
            ("a: x\nweb:\n", 2, "`web` has no command"),
            ("\nmy web: x\n", 2, "such as `my-web`"),
            ("a: x\na: y\n", 2, "the service on line 1 again"),
            ("a-b: x\na_b: y\n", 2, "the service on line 1 again"),
            ("a: 'x\n", 1, "does not split"),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("Procfile:{line}: ")) && error.contains(part), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[-a-z:#' \n$=|\\\\é]{0,60}") {
            let _ = parsed(&text);
        }
    }
}
