//! `Source`: where the command of a service is written, and what to type to start the service in another way.

use std::path::Path;

use crate::frameworks::command::join_for_shell;

/// Where the command of a service is written.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    /// The name that commands take: the key, or else the id.
    pub(crate) name: &'a str,
    pub(crate) key: Option<&'a str>,
    /// The options of `devport start` that the service was started with, apart from key and port.
    pub(crate) options: Vec<String>,
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
                format!("start it with `{}`", self.start(&["--replace", "--wait"], &[], words))
            }
            // The command is part of the identity of a service without a key.
            None => format!("start it with `{}; {}`", self.rm(), self.start(&["--wait"], &[], words)),
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
            None => {
                let port = port.to_string();
                Some(format!("`{}; {}`", self.rm(), self.start(&["--wait"], &["--port", &port], words)))
            }
            Some(file) if file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") => {
                let (entry, again) = (self.entry(), self.start_from(file, "--wait"));
                let file = file.display();
                Some(format!("`port: {port}` for {entry} in {file}, then `{}; {again}`", self.rm()))
            }
            Some(_) => None,
        }
    }

    /// Returns the command that starts the service again after a change outside of devport.
    pub(super) fn restart(&self) -> String {
        format!("devport restart --wait {}", shell_words::quote(self.name))
    }

    fn rm(&self) -> String {
        format!("devport rm {}", shell_words::quote(self.name))
    }

    /// Returns the line that starts a typed command.
    fn start(&self, options: &[&str], port: &[&str], words: &[String]) -> String {
        let key = self.key.map(|key| ["--key", key]);
        let options = ["devport", "start"]
            .iter()
            .chain(options)
            .copied()
            .chain(key.into_iter().flatten())
            .chain(port.iter().copied());
        let options = options.chain(self.options.iter().map(String::as_str));
        shell_words::join(options.chain(["--"]).chain(words.iter().map(String::as_str)))
    }

    /// Returns the line that starts the entry of a file.
    fn start_from(&self, file: &Path, options: &str) -> String {
        let (entry, path) = (shell_words::quote(self.entry()), file.to_string_lossy());
        let path = shell_words::quote(&path);
        match self.is_stack {
            true if file.ends_with("devport.yaml") => format!("devport up -d {entry}"),
            true => format!("devport up -d -f {path} {entry}"),
            false => format!("devport start {options} -f {path} {entry}"),
        }
    }

    /// Returns the name of the service in its file.
    fn entry(&self) -> &str {
        let key = self.key.unwrap_or(self.name);
        key.split_once('/').filter(|_| self.is_stack).map_or(key, |(_, entry)| entry)
    }
}
