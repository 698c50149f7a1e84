//! `PortAdvice`: why a service listens on a wrong port, and what to type instead.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::frameworks::command::{basename, join_for_shell, simple_commands};
use crate::frameworks::framework::{Framework, Reads};
use crate::frameworks::package::{Package, ScriptCall};
use crate::frameworks::recognize;

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
}

/// Why a service listens on a wrong port, and how to start it instead. Its `Display` is a sentence fragment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortAdvice {
    /// The name of the framework; `None` if it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    framework: Option<String>,
    cause: Cause,
    /// The variable that holds the service's port.
    variable: String,
    /// The whole command that passes the port, quoted for a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    line: Option<String>,
    /// The command that must stand in `script`, or else somewhere in the service's command; `None` if `line` is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part: Option<String>,
    /// The script of `package.json` that sets the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    script: Option<String>,
}

/// Why a service listens on a wrong port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Cause {
    /// The framework does not read the variable.
    NotRead,
    /// The framework reads the variable, but an option or its configuration overrides it.
    Overridden,
    /// The framework reads `PORT`, and the service has its port in another variable.
    OtherVariable,
    /// The app's own code sets the port.
    AppCode,
    /// The framework is unknown, or a later devport recorded another cause.
    #[serde(other)]
    Unknown,
}

/// Where the port has to be passed.
enum Place {
    /// After the command.
    Line(String),
    /// Inside the command or inside a script.
    Part {
        part: String,
        script: Option<String>,
    },
    Nowhere,
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
                    None => self.unknown(Some(&call), package),
                },
            },
            None => match shell_text(self.words) {
                Some(text) => match self.place_in(text, None, package) {
                    Some((framework, place)) => self.advice(framework, place),
                    None => self.advise_listener(None, package),
                },
                None => match recognize::of_words(self.words, package) {
                    Some(framework) => self.advice(framework, Place::Line(self.line(framework))),
                    None => self.advise_listener(None, package),
                },
            },
        }
    }

    /// Advises on a script whose text is known.
    fn advise_script(&self, call: &ScriptCall, text: &str, package: Option<&Package>) -> PortAdvice {
        match self.place_in(text, Some(call), package) {
            Some((framework, place)) => self.advice(framework, place),
            None => self.advise_listener(Some(call), package),
        }
    }

    /// Advises by what listens: the command starts it in some other way.
    fn advise_listener(&self, call: Option<&ScriptCall>, package: Option<&Package>) -> PortAdvice {
        let Some(framework) = self.listener(package) else { return self.unknown(call, package) };
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
            _ => Place::Part { part: self.part(framework, words), script: call.map(|call| call.script.clone()) },
        };
        Some((framework, place))
    }

    /// Returns the command with the port, for a framework that is its program.
    fn line(&self, framework: &Framework) -> String {
        let mut words = framework.without_port(self.words);
        let arguments = framework.port_arguments(&words, self.variable);
        // `npm exec` takes options before `--` for itself.
        if words.first().is_some_and(|word| basename(word) == "npm") && !words.iter().any(|word| word == "--") {
            words.push("--".into());
        }
        shell_words::join(words.into_iter().chain(arguments))
    }

    /// Returns the command of a script with the port as an argument of the script.
    fn line_of_script(&self, call: &ScriptCall, framework: &Framework) -> String {
        let kept = framework.without_port(&self.words[call.head..]);
        let arguments = framework.port_arguments(&kept, self.variable);
        self.call_with(call, kept, arguments)
    }

    /// Joins the call of a script with its arguments.
    fn call_with(&self, call: &ScriptCall, mut kept: Vec<String>, arguments: Vec<String>) -> String {
        if let Some(index) = kept.iter().position(|word| word == "--") {
            kept.remove(index);
        }
        let mut words = self.words[..call.head].to_vec();
        words.extend(call.is_npm.then(|| "--".to_owned()));
        shell_words::join(words.into_iter().chain(kept).chain(arguments))
    }

    /// Returns a command of a script with the port, as it must stand in the script.
    fn part(&self, framework: &Framework, words: &[String]) -> String {
        let mut words = framework.without_port(words);
        let arguments = framework.port_arguments(&words, self.variable);
        words.extend(arguments);
        join_for_shell(&words)
    }

    fn advice(&self, framework: &Framework, place: Place) -> PortAdvice {
        let cause = match framework.reads {
            Reads::AppCode => Cause::AppCode,
            Reads::Variable(name) if name == self.variable => Cause::Overridden,
            Reads::Variable("PORT") => Cause::OtherVariable,
            Reads::Variable(_) | Reads::Nothing => Cause::NotRead,
        };
        let place = if framework.arguments.is_empty() { Place::Nowhere } else { place };
        let (line, part, script) = match place {
            Place::Line(line) => (Some(line), None, None),
            Place::Part { part, script } => (None, Some(part), script),
            Place::Nowhere => (None, None, None),
        };
        let framework = Some(framework.name.to_owned());
        PortAdvice { framework, cause, variable: self.variable.into(), line, part, script }
    }

    /// Advises on an unknown program: an app whose own code listens, or one that takes the port as an argument.
    fn unknown(&self, call: Option<&ScriptCall>, package: Option<&Package>) -> PortAdvice {
        let is_javascript = self.listeners.iter().any(|line| recognize::is_javascript(line));
        if let Some(framework) = package.filter(|_| is_javascript).and_then(recognize::of_dependencies) {
            return self.advice(framework, Place::Nowhere);
        }
        let arguments = vec!["--port".to_owned(), format!("${}", self.variable)];
        let line = match call {
            Some(call) => Some(self.call_with(call, self.words[call.head..].to_vec(), arguments)),
            None if shell_text(self.words).is_some() => None,
            None => Some(shell_words::join(self.words.iter().cloned().chain(arguments))),
        };
        PortAdvice {
            framework: None,
            cause: Cause::Unknown,
            variable: self.variable.into(),
            line,
            part: None,
            script: None,
        }
    }
}

/// Returns the line that a command passes to a shell: `sh -c LINE`.
fn shell_text(words: &[String]) -> Option<&str> {
    let is_shell = |word: &String| matches!(basename(word), "sh" | "bash" | "zsh" | "dash");
    match words {
        [shell, option, text, ..] if is_shell(shell) && option.starts_with('-') && option.ends_with('c') => Some(text),
        _ => None,
    }
}

impl fmt::Display for PortAdvice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variable = &self.variable;
        match (&self.framework, self.cause) {
            (Some(name), Cause::NotRead) => write!(f, "{name} does not read {variable}: ")?,
            (Some(name), Cause::Overridden) => {
                write!(f, "{name} reads {variable}, but something else sets its port: ")?;
            }
            (Some(name), Cause::OtherVariable) => {
                return write!(f, "{name} reads PORT, not {variable}: start it without --port-env");
            }
            (Some(name), Cause::AppCode) => {
                return write!(f, "the port of {name} is set in the app's own code: read {variable} there");
            }
            (Some(_) | None, Cause::Unknown) | (None, _) => {
                write!(f, "it seems to ignore {variable}: pass the port as an argument")?;
                return self.line.as_ref().map_or(Ok(()), |line| write!(f, ", such as `{line}`"));
            }
        }
        match (&self.line, &self.part, &self.script) {
            (Some(line), ..) => write!(f, "start it with `{line}`"),
            (None, Some(part), Some(script)) => write!(f, "in the script {script} of package.json, write `{part}`"),
            (None, Some(part), None) => write!(f, "where it is started, write `{part}`"),
            (None, None, _) => f.write_str("set it in its configuration"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The advice for a command, in a directory whose `package.json` is this one.
    fn advise(line: &str, package: &str, listener: &str) -> PortAdvice {
        let directory = tempfile::tempdir().unwrap();
        if !package.is_empty() {
            std::fs::write(directory.path().join("package.json"), package).unwrap();
        }
        let words = shell_words::split(line).unwrap();
        let listeners = [listener.to_owned()];
        let launch = Launch { words: &words, directory: directory.path(), variable: "PORT", listeners: &listeners };
        launch.advise()
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
            let expected = format!("Vite does not read PORT: start it with `{better}`");
            assert_eq!(advice.to_string(), expected, "{line}");
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
            let expected = format!("Vite does not read PORT: in the script dev of package.json, write `{better}`");
            assert_eq!(advise("npm run dev", &package, "").to_string(), expected, "{script}");
        }
        let next = r#"{"scripts": {"dev": "PORT=3000 next dev -p 3000"}}"#;
        assert_eq!(
            advise("npm run dev", next, "").to_string(),
            "Next.js reads PORT, but something else sets its port: in the script dev of package.json, write \
             `next dev --port $PORT`"
        );
    }

    #[test]
    fn the_listening_process_decides_if_the_command_does_not() {
        let vite = "node /p/node_modules/.bin/vite";
        let package = r#"{"scripts": {"dev": "concurrently 'npm:web' 'npm:api'"}}"#;
        let in_part = "Vite does not read PORT: where it is started, write `vite --port $PORT --strictPort`";
        for (line, package) in [("npm run dev", package), ("./dev.sh", ""), ("sh -c 'make web'", "")] {
            assert_eq!(advise(line, package, vite).to_string(), in_part, "{line}");
        }
        let workspace = advise("pnpm --filter web dev", "", vite);
        assert_eq!(workspace.line.as_deref(), Some("pnpm --filter web dev --port '$PORT' --strictPort"));
    }

    #[test]
    fn an_app_that_listens_by_its_own_code_is_recognized_by_its_dependencies() {
        let package = r#"{"scripts": {"dev": "node server.js"}, "dependencies": {"express": "5"}}"#;
        let expected = "the port of Express is set in the app's own code: read PORT there";
        for line in ["npm run dev", "node server.js", "npx nodemon server.js"] {
            assert_eq!(advise(line, package, "node server.js").to_string(), expected, "{line}");
        }
        assert!(advise("./server", package, "./server").to_string().starts_with("it seems to ignore PORT"));
    }

    #[test]
    fn an_unknown_program_is_to_take_the_port_as_an_argument() {
        for (line, better) in [
            ("./server -v", ", such as `./server -v --port '$PORT'`"),
            ("npm run dev", ", such as `npm run dev -- --port '$PORT'`"),
            ("sh -c './server & wait'", ""),
        ] {
            let expected = format!("it seems to ignore PORT: pass the port as an argument{better}");
            assert_eq!(advise(line, "", "./server").to_string(), expected, "{line}");
        }
    }

    #[test]
    fn advice_names_the_variable_that_the_framework_reads() {
        let advise = |line: &str, variable: &str| {
            let words = shell_words::split(line).unwrap();
            Launch { words: &words, directory: Path::new("/"), variable, listeners: &[] }.advise().to_string()
        };
        assert_eq!(advise("npx next dev", "WEB_PORT"), "Next.js reads PORT, not WEB_PORT: start it without --port-env");
        assert_eq!(
            advise("vite", "VITE_PORT"),
            "Vite does not read VITE_PORT: start it with `vite --port '$VITE_PORT' --strictPort`"
        );
        assert!(advise("flask run", "FLASK_RUN_PORT").starts_with("Flask reads FLASK_RUN_PORT, but something else"));
    }

    #[test]
    fn advice_of_a_later_version_is_still_read() {
        let later = r#"{"framework": "X", "cause": "new", "variable": "PORT", "more": 1}"#;
        let advice: PortAdvice = serde_json::from_str(later).unwrap();
        assert_eq!(advice.to_string(), "it seems to ignore PORT: pass the port as an argument");
        let own = advise("vite", "", "");
        assert_eq!(serde_json::from_str::<PortAdvice>(&serde_json::to_string(&own).unwrap()).unwrap(), own);
    }
}
