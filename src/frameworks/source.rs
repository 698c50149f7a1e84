//! `Source`: where the command of a service is written, and what to type to start the service in another way.

use std::path::Path;

use crate::frameworks::command::join_for_shell;

/// Where the command of a service is written.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    /// The name that commands take in every directory: the whole key of a service of a stack, or else the id.
    pub(crate) name: &'a str,
    pub(crate) key: Option<&'a str>,
    /// The options of `devport start` that the service was started with, apart from key, port and `--env`.
    pub(crate) options: Vec<String>,
    /// The port that it has; `None` if it has none.
    pub(crate) port: Option<u16>,
    /// The names of the variables that `--env` set and the record has. Their values may be secrets.
    pub(crate) env_names: &'a [String],
    /// The file that has the command; `None` if it was typed.
    pub(crate) file: Option<&'a Path>,
    /// Whether that file is a stack.
    pub(crate) is_stack: bool,
}

impl Source<'_> {
    /// Returns what to do so that the service runs this command, as a sentence fragment.
    pub(super) fn with_command(&self, words: &[String]) -> String {
        match self.file {
            None if self.key.is_some() => {
                format!("start it with `{}`", self.with_variables(&self.start_command("--replace --wait", None, words)))
            }
            // The command is part of the identity of a service without a key, and its port is free after `rm`.
            None => format!("replace it, which deletes its log: `{}`", self.start_anew(self.port, words)),
            Some(file) => {
                let (entry, line) = (self.entry(), join_for_shell(words));
                let (file, again) = (file.display(), self.start_from(file, "--replace --wait"));
                format!("in {file}, change the command of {entry} to `{line}`, then run `{again}`")
            }
        }
    }

    /// Returns how to give the service this fixed port, as a sentence fragment; `None` if its file has no ports.
    pub(crate) fn with_port(&self, port: u16, words: &[String]) -> Option<String> {
        match self.file {
            None => Some(format!("`{}`", self.start_anew(Some(port), words))),
            Some(file) if file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") => {
                let (entry, again) = (self.entry(), self.start_from(file, "--wait"));
                let file = file.display();
                Some(format!("`port: {port}` for {entry} in {file}, then `{} && {again}`", self.rm()))
            }
            Some(_) => None,
        }
    }

    /// Returns the line that starts the service with this command again, whether or not it runs, and reads its dotenv
    /// files again.
    pub(crate) fn replace(&self, words: &[String]) -> String {
        match self.file {
            None => self.with_variables(&self.start_command("--replace", None, words)),
            Some(file) => self.start_from(file, "--replace"),
        }
    }

    /// Returns the command that starts the service again after a change outside of devport.
    pub(super) fn restart(&self) -> String {
        format!("devport restart --wait {}", shell_words::quote(self.name))
    }

    fn rm(&self) -> String {
        format!("devport rm {}", shell_words::quote(self.name))
    }

    /// Returns the line that removes the service and starts a typed command in its place.
    fn start_anew(&self, port: Option<u16>, words: &[String]) -> String {
        self.with_variables(&format!("{} && {}", self.rm(), self.start_command("--wait", port, words)))
    }

    /// Returns the command that starts a typed command, which finds the variables of `--env` in `$env1`, `$env2` and so on.
    fn start_command(&self, options: &str, port: Option<u16>, words: &[String]) -> String {
        let key = self.key.into_iter().flat_map(|key| ["--key".into(), key.to_owned()]);
        let port = port.into_iter().flat_map(|port| ["--port".into(), port.to_string()]);
        let quoted =
            key.chain(port).chain(self.options.iter().cloned()).map(|word| shell_words::quote(&word).into_owned());
        let variables = self.env_names.iter().zip(1..);
        let variables = variables.map(|(name, index)| format!("--env \"{name}=$env{index}\""));
        let options: Vec<String> = [options.to_owned()].into_iter().chain(quoted).chain(variables).collect();
        format!("devport start {} -- {}", options.join(" "), shell_words::join(words))
    }

    /// Puts before a line what it needs to set the variables of `--env` again. The advice is logged and printed as JSON,
    /// so it cannot have their values. Nothing runs after a failure: `rm` would delete values that were not read.
    fn with_variables(&self, line: &str) -> String {
        let name = shell_words::quote(self.name);
        let read = |(index, variable): (usize, &String)| {
            format!("env{}=$(devport env --show-secrets {name} {variable}) && ", index + 1)
        };
        self.env_names.iter().enumerate().map(read).collect::<String>() + line
    }

    /// Returns the line that starts the entry of a file. It names the file, because the line may be typed in any directory.
    fn start_from(&self, file: &Path, options: &str) -> String {
        let (entry, path) = (shell_words::quote(self.entry()), file.to_string_lossy());
        let path = shell_words::quote(&path);
        let command = if self.is_stack { "up -d".into() } else { format!("start {options}") };
        // A file names no service without a key.
        let entry = if self.key.is_some() { format!(" {entry}") } else { String::new() };
        format!("devport {command} -f {path}{entry}")
    }

    /// Returns the name of the service in its file.
    fn entry(&self) -> &str {
        let key = self.key.unwrap_or(self.name);
        key.split_once('/').filter(|_| self.is_stack).map_or(key, |(_, entry)| entry)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The source of a service whose command was typed.
    pub(in crate::frameworks) fn typed(key: Option<&str>) -> Source<'_> {
        Source { name: "4b5", key, options: Vec::new(), port: Some(19000), env_names: &[], file: None, is_stack: false }
    }

    /// The source of the service `web` in a file.
    pub(in crate::frameworks) fn written(file: &'static str, is_stack: bool) -> Source<'static> {
        let name = if is_stack { "shop/web" } else { "web" };
        Source { key: Some(name), file: Some(Path::new(file)), is_stack, name, ..typed(None) }
    }

    fn words(line: &str) -> Vec<String> {
        shell_words::split(line).unwrap()
    }

    #[test]
    fn a_typed_command_is_started_with_its_options_and_one_without_a_key_is_removed_first() {
        let options = vec!["--ready".into(), "http:/a b".into()];
        let source = Source { options, env_names: &["A".into(), "B".into()], ..typed(Some("web")) };
        let read = "env1=$(devport env --show-secrets 4b5 A) && env2=$(devport env --show-secrets 4b5 B) && ";
        let options = "--key web --ready 'http:/a b' --env \"A=$env1\" --env \"B=$env2\" -- vite '$PORT'";
        let replace = format!("start it with `{read}devport start --replace --wait {options}`");
        assert_eq!(source.with_command(&words("vite '$PORT'")), replace);
        let anew = "replace it, which deletes its log: `devport rm 4b5 && devport start --wait --port 19000 -- vite`";
        assert_eq!(typed(None).with_command(&words("vite")), anew);
        let fixed = "`devport rm 4b5 && devport start --wait --key web --port 3000 -- vite`";
        assert_eq!(typed(Some("web")).with_port(3000, &words("vite")).unwrap(), fixed);
    }

    #[test]
    fn the_file_of_a_service_is_named_in_every_command() {
        for (file, is_stack, again) in [
            ("/w/devport.yaml", true, "devport up -d -f /w/devport.yaml web"),
            ("/w/Procfile", true, "devport up -d -f /w/Procfile web"),
            ("/a b/list.yaml", false, "devport start --replace --wait -f '/a b/list.yaml' web"),
        ] {
            let expected = format!("in {file}, change the command of web to `vite --port $PORT`, then run `{again}`");
            assert_eq!(written(file, is_stack).with_command(&words("vite --port '$PORT'")), expected);
        }
        let fixed = "`port: 3000` for web in /w/devport.yaml, then `devport rm shop/web && devport up -d -f /w/devport.yaml web`";
        assert_eq!(written("/w/devport.yaml", true).with_port(3000, &[]).unwrap(), fixed);
        assert_eq!(written("/w/Procfile", true).with_port(3000, &[]), None);
    }
}
