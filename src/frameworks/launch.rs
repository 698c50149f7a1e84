//! `Launch`: finds out why a service listens on a wrong port, and where its command must pass the port.

use std::path::Path;

use crate::frameworks::advice::{Cause, PortAdvice};
use crate::frameworks::command::{basename, join_for_shell, simple_commands};
use crate::frameworks::framework::{Framework, Reads};
use crate::frameworks::package::{Package, ScriptCall};
use crate::frameworks::recognize;
use crate::frameworks::source::Source;

/// How a service was started that listens on a wrong port.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// The command, unexpanded.
    pub(crate) words: &'a [String],
    pub(crate) directory: &'a Path,
    /// The variable that holds the service's port.
    pub(crate) variable: &'a str,
    /// The command lines of the processes that listen.
    pub(crate) listeners: &'a [String],
    /// The port that it listens on; `None` if it cannot have that one.
    pub(crate) port: Option<u16>,
    pub(crate) source: Source<'a>,
}

/// Where the port has to be passed.
enum Place {
    /// After the command.
    Line(Vec<String>),
    /// Inside the command or inside a script.
    Part { part: String, script: Option<String> },
    /// The framework has no arguments for it.
    Nowhere,
    /// The command passes it already.
    Passed,
}

impl Launch<'_> {
    /// Finds out why the service listens on a wrong port, from its command, its `package.json` and its processes.
    pub(crate) fn advise(&self) -> PortAdvice {
        let call = ScriptCall::parse(self.words);
        let package = match &call {
            Some(call) => call.directory.as_ref().and_then(|below| Package::load(&self.directory.join(below))),
            None => Package::load(self.directory),
        };
        let package = package.as_ref();
        let text = |call: &ScriptCall| package.and_then(|package| package.script(&call.script)).map(str::to_owned);
        // `pnpm vite` runs a program, unless there is a script of that name.
        let is_script = |call: &ScriptCall| {
            call.is_explicit || text(call).is_some() || recognize::of_words(self.words, package).is_none()
        };
        match call.filter(is_script) {
            Some(call) => match text(&call) {
                Some(text) => self.advise_script(&call, &text, package),
                None => match self.listener(package) {
                    Some(framework) => self.advice(framework, Place::Line(self.line_of_script(&call, framework))),
                    None => self.unknown(package),
                },
            },
            None => match shell_text(self.words) {
                Some(text) => match self.place_in(text, None, package) {
                    Some((framework, place)) => self.advice(framework, place),
                    None => self.advise_listener(package),
                },
                None => match recognize::of_words(self.words, package) {
                    Some(framework) => self.advice(framework, Place::Line(self.line(framework))),
                    None => self.advise_listener(package),
                },
            },
        }
    }

    /// Advises on a script whose text is known.
    fn advise_script(&self, call: &ScriptCall, text: &str, package: Option<&Package>) -> PortAdvice {
        match self.place_in(text, Some(call), package) {
            Some((framework, place)) => self.advice(framework, place),
            None => self.advise_listener(package),
        }
    }

    /// Advises by what listens: the command starts it in some other way.
    fn advise_listener(&self, package: Option<&Package>) -> PortAdvice {
        let Some(framework) = self.listener(package) else { return self.unknown(package) };
        let words = shell_words::split(framework.command).unwrap_or_default();
        self.advice(framework, Place::Part { part: self.part(framework, &words), script: None })
    }

    /// Recognizes one of the processes that listen.
    fn listener(&self, package: Option<&Package>) -> Option<&'static Framework> {
        self.listeners.iter().find_map(|line| recognize::of_process(line, package))
    }

    /// Finds a framework in a line for a shell, and where its port is to be passed. Arguments that are appended to a
    /// script reach its last simple command only.
    fn place_in(
        &self,
        text: &str,
        call: Option<&ScriptCall>,
        package: Option<&Package>,
    ) -> Option<(&'static Framework, Place)> {
        let commands = simple_commands(text);
        let (words, framework) =
            commands.iter().rev().find_map(|words| Some((words, recognize::of_words(words, package)?)))?;
        let is_last = commands.last() == Some(words);
        let sets_port = framework.without_port(words).len() < words.len();
        let place = match call {
            Some(call) if is_last && !sets_port => Place::Line(self.line_of_script(call, framework)),
            _ if has_same_words(&self.part_words(framework, words), words) => Place::Passed,
            _ => Place::Part { part: self.part(framework, words), script: call.map(|call| call.script.clone()) },
        };
        Some((framework, place))
    }

    /// Returns the command with the port, for a framework that is its program.
    fn line(&self, framework: &Framework) -> Vec<String> {
        let mut words = framework.without_port(self.words);
        let arguments = framework.port_arguments(&words, self.variable);
        // `npm exec` takes options before `--` for itself.
        if words.first().is_some_and(|word| basename(word) == "npm") && !words.iter().any(|word| word == "--") {
            words.push("--".into());
        }
        words.into_iter().chain(arguments).collect()
    }

    /// Returns the command of a script with the port as an argument of the script.
    fn line_of_script(&self, call: &ScriptCall, framework: &Framework) -> Vec<String> {
        let kept = framework.without_port(&self.words[call.head..]);
        let arguments = framework.port_arguments(&kept, self.variable);
        let is_separator = |word: &String| word == "--";
        let mut words = self.words[..call.head].to_vec();
        words.extend(call.is_npm.then(|| "--".to_owned()));
        let separator = kept.iter().position(is_separator);
        words.extend(kept.into_iter().enumerate().filter(|(index, _)| Some(*index) != separator).map(|(_, word)| word));
        words.extend(arguments);
        words
    }

    /// Returns a command of a script with the port, as it must stand in the script.
    fn part(&self, framework: &Framework, words: &[String]) -> String {
        join_for_shell(&self.part_words(framework, words))
    }

    fn part_words(&self, framework: &Framework, words: &[String]) -> Vec<String> {
        let mut words = framework.without_port(words);
        let arguments = framework.port_arguments(&words, self.variable);
        words.extend(arguments);
        words
    }

    fn advice(&self, framework: &Framework, place: Place) -> PortAdvice {
        let place = match place {
            _ if framework.arguments.is_empty() => Place::Nowhere,
            Place::Line(words) if has_same_words(&words, self.words) => Place::Passed,
            other => other,
        };
        let cause = match framework.reads {
            Reads::AppCode => Cause::AppCode,
            _ if matches!(place, Place::Passed) => Cause::Ignored,
            Reads::Variable(name) if name == self.variable => Cause::Overridden,
            Reads::Variable("PORT") => Cause::OtherVariable,
            Reads::Variable(_) | Reads::Nothing => Cause::NotRead,
        };
        let mut advice = PortAdvice { framework: Some(framework.name.to_owned()), ..self.without_framework(cause) };
        match place {
            Place::Line(words) => {
                // Only a shell replaces a variable, and only a typed command has been through one.
                advice.is_unquoted = self.source.file.is_none() && self.differs_by_variable(&words);
                advice.remedy = Some(self.source.with_command(&words));
                advice.line = Some(shell_words::join(words));
            }
            Place::Part { part, script } => {
                (advice.part, advice.script) = (Some(part), script);
            }
            Place::Nowhere | Place::Passed => {}
        }
        advice
    }

    /// Advises on an unknown program: an app whose own code listens.
    fn unknown(&self, package: Option<&Package>) -> PortAdvice {
        let is_javascript = self.listeners.iter().any(|line| recognize::is_javascript(line));
        match package.filter(|_| is_javascript).and_then(recognize::of_dependencies) {
            Some(framework) => self.advice(framework, Place::Nowhere),
            None => self.without_framework(Cause::Unknown),
        }
    }

    /// Returns advice that applies to every program.
    fn without_framework(&self, cause: Cause) -> PortAdvice {
        let lines = self.listeners.iter().chain(self.words.first());
        let words = if cause == Cause::Unknown { self.without_guess() } else { self.words };
        PortAdvice {
            framework: None,
            cause,
            variable: self.variable.into(),
            line: None,
            part: None,
            script: None,
            remedy: Some(format!("then run `{}`", self.source.restart())),
            // The ports below need privileges, and devport gives none of them.
            fixed_port: self.port.filter(|port| *port >= 1024).and_then(|port| self.source.with_port(port, words)),
            expression: lines.into_iter().find_map(|line| recognize::expression(line, self.variable)),
            is_unquoted: false,
        }
    }

    /// Returns the command without `--port $PORT`, which the program does not use.
    fn without_guess(&self) -> &[String] {
        let guess = ["--port".to_owned(), format!("${}", self.variable)];
        self.words.strip_suffix(&guess).unwrap_or(self.words)
    }

    /// Returns whether a command differs from the service's own only by the variable.
    fn differs_by_variable(&self, words: &[String]) -> bool {
        let variable = format!("${}", self.variable);
        let without: Vec<String> = words.iter().map(|word| word.replace(&variable, "")).collect();
        has_same_words(&without, self.words)
    }
}

/// Returns whether two commands have the same words that are not empty, in any order.
fn has_same_words(one: &[String], other: &[String]) -> bool {
    let sorted = |words: &[String]| {
        let mut words: Vec<String> = words.iter().filter(|word| !word.is_empty()).cloned().collect();
        words.sort();
        words
    };
    sorted(one) == sorted(other)
}

/// Returns the line that a command passes to a shell: `sh -c LINE`.
fn shell_text(words: &[String]) -> Option<&str> {
    let is_shell = |word: &String| matches!(basename(word), "sh" | "bash" | "zsh" | "dash");
    match words {
        [shell, option, text, ..] if is_shell(shell) && option.starts_with('-') && option.ends_with('c') => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frameworks::source::tests::{typed, written};

    /// The advice for a command, in a directory whose `package.json` is this one.
    fn advise(line: &str, package: &str, listener: &str) -> PortAdvice {
        let directory = tempfile::tempdir().unwrap();
        if !package.is_empty() {
            std::fs::write(directory.path().join("package.json"), package).unwrap();
        }
        let words = shell_words::split(line).unwrap();
        let listeners = [listener.to_owned()];
        let (directory, variable, source) = (directory.path(), "PORT", typed(Some("web")));
        Launch { words: &words, directory, variable, listeners: &listeners, port: Some(3000), source }.advise()
    }

    fn advise_from(source: Source<'_>, line: &str) -> String {
        let words = shell_words::split(line).unwrap();
        let (directory, port) = (Path::new("/"), Some(3000));
        Launch { words: &words, directory, variable: "PORT", listeners: &[], port, source }.advise().to_string()
    }

    #[test]
    fn a_program_gets_its_own_options_in_place_of_wrong_ones() {
        for (line, better) in [
            ("vite", "vite --port '$PORT' --strictPort"),
            ("npx vite --port 3000 --host", "npx vite --host --port '$PORT' --strictPort"),
            ("pnpm vite --strictPort", "pnpm vite --strictPort --port '$PORT'"),
            ("npm exec vite", "npm exec vite -- --port '$PORT' --strictPort"),
            ("python manage.py runserver 8000", "python manage.py runserver '$PORT'"),
            ("python3 -m http.server", "python3 -m http.server '$PORT'"),
            ("flask --app x run -p 80", "flask --app x run --port '$PORT'"),
            ("gunicorn app:app", "gunicorn app:app -b '127.0.0.1:$PORT'"),
            ("npx @11ty/eleventy --serve", "npx @11ty/eleventy --serve '--port=$PORT'"),
        ] {
            assert_eq!(advise(line, "", "").line.as_deref(), Some(better), "{line}");
        }
    }

    #[test]
    fn a_script_gets_arguments_as_its_package_manager_passes_them_on() {
        let package = r#"{"scripts": {"dev": "tsc -b && vite", "start": "vite"}}"#;
        for (line, better) in [
            ("npm run dev", "npm run dev -- --port '$PORT' --strictPort"),
            ("npm run dev $PORT", "npm run dev -- --port '$PORT' --strictPort"),
            ("npm run dev -- --port 3000 --open", "npm run dev -- --open --port '$PORT' --strictPort"),
            ("npm start", "npm start -- --port '$PORT' --strictPort"),
            ("pnpm run dev -- --port 3000", "pnpm run dev --port '$PORT' --strictPort"),
            ("pnpm dev", "pnpm dev --port '$PORT' --strictPort"),
            ("yarn dev", "yarn dev --port '$PORT' --strictPort"),
            ("bun run dev", "bun run dev --port '$PORT' --strictPort"),
        ] {
            let advice = advise(line, package, "");
            let start = format!("start it with `devport start --replace --wait --key web -- {better}`");
            assert!(advice.to_string().ends_with(&start), "{line}: {advice}");
        }
    }

    #[test]
    fn a_script_that_cannot_take_arguments_is_to_be_changed() {
        for (script, better) in [
            ("vite & node api.js", "vite --port $PORT --strictPort"),
            ("vite --port 3000 --open", "vite --open --port $PORT --strictPort"),
            ("cd web; vite --config 'a b' | tee log", "vite --config 'a b' --port $PORT --strictPort"),
        ] {
            let package = serde_json::json!({"scripts": {"dev": script}}).to_string();
            let expected = format!(
                "Vite does not read PORT: in the script dev of package.json, write `{better}`, then run `devport restart --wait 4b5`"
            );
            assert_eq!(advise("npm run dev", &package, "").to_string(), expected, "{script}");
        }
        let next = r#"{"scripts": {"dev": "PORT=3000 next dev -p 3000"}}"#;
        assert_eq!(
            advise("npm run dev", next, "").to_string(),
            "Next.js reads PORT, but something else sets its port: in the script dev of package.json, write \
             `next dev --port $PORT`, then run `devport restart --wait 4b5`"
        );
    }

    #[test]
    fn the_listening_process_decides_if_the_command_does_not() {
        let vite = "node /p/node_modules/.bin/vite";
        let package = r#"{"scripts": {"dev": "concurrently 'npm:web' 'npm:api'"}}"#;
        let in_part = "Vite does not read PORT: where it is started, write `vite --port $PORT --strictPort`, then run \
                       `devport restart --wait 4b5`";
        for (line, package) in [("npm run dev", package), ("./dev.sh", ""), ("sh -c 'make web'", "")] {
            assert_eq!(advise(line, package, vite).to_string(), in_part, "{line}");
        }
        let workspace = advise("pnpm --filter web dev", "", vite);
        assert_eq!(workspace.line.as_deref(), Some("pnpm --filter web dev --port '$PORT' --strictPort"));
    }

    #[test]
    fn an_app_that_listens_by_its_own_code_is_recognized_by_its_dependencies() {
        let package = r#"{"scripts": {"dev": "node server.js"}, "dependencies": {"express": "5"}}"#;
        let expected = "the port of Express is set in the app's own code: make its code read `process.env.PORT`, then run \
                        `devport restart --wait 4b5`, or give it that fixed port, which deletes its log: `devport rm 4b5 && devport start --wait --key web --port 3000 -- ";
        for line in ["npm run dev", "node server.js", "npx nodemon server.js"] {
            let advice = advise(line, package, "node server.js").to_string();
            assert_eq!(advice, format!("{expected}{line}`"));
        }
        assert!(advise("./server", package, "./server").to_string().starts_with("it ignores PORT"));
    }

    #[test]
    fn an_unknown_program_must_read_the_variable_or_gets_a_fixed_port() {
        for (line, listener, code, kept) in [
            ("node hard.js", "node hard.js", "make its code read `process.env.PORT`", "node hard.js"),
            ("node hard.js --port '$PORT'", "node hard.js", "make its code read `process.env.PORT`", "node hard.js"),
            ("npm run dev", "", "make its code read `process.env.PORT`", "npm run dev"),
            ("sh -c './a & wait'", "python3 a.py", "make its code read `os.environ[\"PORT\"]`", "sh -c './a & wait'"),
            ("./server -v", "./server -v", "make it read PORT", "./server -v"),
        ] {
            let fixed = format!("`devport rm 4b5 && devport start --wait --key web --port 3000 -- {kept}`");
            let restart = "then run `devport restart --wait 4b5`";
            let fixed = format!("or give it that fixed port, which deletes its log: {fixed}");
            let expected = format!("it ignores PORT: {code}, {restart}, {fixed}");
            assert_eq!(advise(line, "", listener).to_string(), expected, "{line}");
        }
    }

    #[test]
    fn a_command_that_lacks_only_the_variable_is_to_be_quoted() {
        let quote = "does not read PORT: quote '$PORT', or your shell replaces it by nothing: start it with ";
        for line in ["vite --port --strictPort", "npx @11ty/eleventy --serve --port=", "python3 -m http.server ''"] {
            let advice = advise(line, "", "").to_string();
            assert!(advice.contains(quote), "{line}: {advice}");
        }
        for line in ["vite", "vite --port 3000 --strictPort", "vite --strictPort"] {
            assert!(!advise(line, "", "").to_string().contains("quote"), "{line}");
        }
        assert!(!advise_from(written("/w/devport.yaml", true), "python3 -m http.server").contains("quote"));
    }

    #[test]
    fn what_the_command_has_already_is_not_advised() {
        let fixed = ": set it in its configuration, then run `devport restart --wait 4b5`, or give it that fixed port, \
                     which deletes its log: `devport rm 4b5 && devport start --wait --key web --port 3000 -- ";
        for line in ["vite --strictPort --port '$PORT'", "python3 -m http.server '$PORT' --bind 127.0.0.1"] {
            let advice = advise(line, "", "").to_string();
            assert!(advice.contains(&format!(" does not use the port that its command passes{fixed}")), "{advice}");
        }
        let script = r#"{"scripts": {"dev": "vite --port $PORT --strictPort & node api.js"}}"#;
        assert!(advise("npm run dev", script, "").to_string().starts_with("Vite does not use the port"));
    }

    #[test]
    fn advice_names_the_variable_that_the_framework_reads() {
        let advise = |line: &str, variable: &str| {
            let words = shell_words::split(line).unwrap();
            let (directory, source) = (Path::new("/"), typed(Some("web")));
            Launch { words: &words, directory, variable, listeners: &[], port: None, source }.advise().to_string()
        };
        assert_eq!(advise("npx next dev", "WEB_PORT"), "Next.js reads PORT, not WEB_PORT: start it without --port-env");
        assert_eq!(
            advise("vite", "VITE_PORT"),
            "Vite does not read VITE_PORT: start it with `devport start --replace --wait --key web -- vite --port \
             '$VITE_PORT' --strictPort`"
        );
        assert!(advise("flask run", "FLASK_RUN_PORT").starts_with("Flask reads FLASK_RUN_PORT, but something else"));
    }

    #[test]
    fn advice_comes_back_as_it_was_recorded() {
        let advice = advise("vite", "", "");
        assert_eq!(serde_json::from_str::<PortAdvice>(&serde_json::to_string(&advice).unwrap()).unwrap(), advice);
    }
}
