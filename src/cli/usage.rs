//! Turns clap's errors into devport's: one message, one hint.

use std::ffi::OsString;

use clap::Subcommand;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::cli::args::Command;
use crate::error::Error;
use crate::text::shorten;

/// Commands of other tools, and the command of devport that does the same.
const SYNONYMS: [(&[&str], &str); 7] = [
    (&["status", "ps", "list", "top"], "ls"),
    (&["show", "info", "inspect", "describe"], "which"),
    (&["serve", "launch"], "start"),
    (&["kill", "end"], "stop"),
    (&["remove", "delete", "forget"], "rm"),
    (&["log", "tail"], "logs"),
    (&["exec"], "run"),
];

/// What a conflict is with if clap does not name the option that was typed.
const SEVERAL_OPTIONS: &str = "options of a new service";

/// Returns the error for a command line with nothing after `--`, as an empty variable leaves it; `None` for another one.
pub(super) fn nothing_after_dashes(arguments: &[OsString]) -> Option<Error> {
    let dashes = arguments.iter().position(|word| word == "--")?;
    if dashes + 1 < arguments.len() {
        return None;
    }
    let (message, hint) = match command(arguments) {
        "start" | "run" => {
            ("there is no command after --", "put the command after --, as in `devport start --key api -- npm run dev`")
        }
        _ => ("there is nothing after --", "name a service after --, or leave -- out"),
    };
    Some(Error::Usage { message: message.into(), hint: hint.into() })
}

/// Returns the command of devport in a command line; empty if there is none.
fn command(arguments: &[OsString]) -> &str {
    let mut words = arguments.iter().skip(1).filter_map(|word| word.to_str());
    words.find(|word| Command::has_subcommand(word)).unwrap_or("")
}

/// Returns the error for arguments that clap refuses. `None` if they request help or the version.
pub(super) fn error(error: &clap::Error, arguments: &[OsString]) -> Option<Error> {
    let command = command(arguments);
    let argument = text(error, ContextKind::InvalidArg);
    let name = plain(&argument);
    let value = text(error, ContextKind::InvalidValue);
    if error.kind() == ErrorKind::ArgumentConflict
        && let Some(missing) = unit_of_wait(arguments, None)
    {
        return Some(missing);
    }
    let page = if command.is_empty() { "devport --help".into() } else { format!("devport {command} --help") };
    let help = format!("`{page}` describes the options");
    let (message, hint) = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            return None;
        }
        ErrorKind::InvalidSubcommand => {
            let typed = text(error, ContextKind::InvalidSubcommand);
            (format!("there is no command {typed:?}"), command_hint(error, &typed))
        }
        ErrorKind::UnknownArgument => {
            (format!("unexpected {argument:?}"), unknown_hint(error, command, &argument, help))
        }
        ErrorKind::MissingRequiredArgument => missing(command, &argument, help),
        ErrorKind::InvalidValue if value.is_empty() => (format!("{name} needs a value"), help),
        ErrorKind::InvalidValue => {
            let valid = text(error, ContextKind::ValidValue);
            (format!("{name} cannot be {value:?}"), format!("use one of {valid}"))
        }
        ErrorKind::ValueValidation => {
            let why = std::error::Error::source(error).map_or_else(String::new, ToString::to_string);
            // The reasons of devport name the value, and some of clap's do not.
            let named = if why.contains(&value) { String::new() } else { format!(" {value:?}") };
            let hint = if why.contains("has no unit") { unit_hint(&name, &value) } else { help };
            (format!("invalid value{named} for {name}: {why}"), hint)
        }
        ErrorKind::ArgumentConflict => {
            let rival = typed_rival(error, arguments);
            let has_target = name == "TARGET" || rival == "TARGET" || rival == SEVERAL_OPTIONS;
            match without_dashes(command, arguments).filter(|_| has_target) {
                Some(refused) => refused,
                None => conflict(&name, &rival, command, help),
            }
        }
        _ => {
            let message = error.to_string();
            let first = message.lines().next().unwrap_or_default();
            (first.trim_start_matches("error: ").to_owned(), help)
        }
    };
    Some(Error::Usage { message, hint })
}

/// Returns the error of a bare number after `--wait`, where a duration was probably meant. Clap takes such a number as a
/// TARGET: it may be a port or an id. `target`: only this number.
pub(super) fn unit_of_wait(arguments: &[OsString], target: Option<&str>) -> Option<Error> {
    let own = arguments.iter().take_while(|word| *word != "--").map(|word| word.to_str().unwrap_or_default());
    let own: Vec<&str> = own.collect();
    let number = own.windows(2).find(|pair| pair[0] == "--wait").map(|pair| pair[1])?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && target.is_none_or(|target| target == number))
        .then(|| Error::Usage { message: format!("--wait {number} has no unit"), hint: unit_hint("--wait", number) })
}

/// Returns the hint for a duration without a unit.
fn unit_hint(option: &str, number: &str) -> String {
    format!("write `{option}={number}s`")
}

/// Returns the values that clap attached to an error, separated by commas.
fn text(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    }
}

/// Returns the argument that excludes the invalid one. Clap names all arguments of a group, also those that were not typed.
fn typed_rival(error: &clap::Error, arguments: &[OsString]) -> String {
    let rivals = match error.get(ContextKind::PriorArg) {
        Some(ContextValue::String(rival)) => vec![plain(rival)],
        Some(ContextValue::Strings(rivals)) => rivals.iter().map(|rival| plain(rival)).collect(),
        _ => Vec::new(),
    };
    let is_typed = |rival: &&String| {
        let words = arguments.iter().filter_map(|word| word.to_str()?.split('=').next());
        words.into_iter().any(|word| word == rival.as_str())
    };
    match rivals.as_slice() {
        [rival] => rival.clone(),
        rivals => rivals.iter().find(is_typed).cloned().unwrap_or_else(|| SEVERAL_OPTIONS.into()),
    }
}

/// Shortens an argument as clap writes it, such as `--key <KEY>` or `[TARGET]...`, to what a sentence needs.
fn plain(argument: &str) -> String {
    let word = argument.split(' ').next().unwrap_or_default().trim_end_matches("...");
    let word = word.split(['[', '=']).find(|part| !part.is_empty()).unwrap_or(word);
    word.trim_matches(['<', '>', '[', ']']).to_owned()
}

fn command_hint(error: &clap::Error, typed: &str) -> String {
    let known = SYNONYMS.iter().find(|(words, _)| words.contains(&typed)).map(|(_, command)| (*command).to_owned());
    let similar = text(error, ContextKind::SuggestedSubcommand);
    // Clap puts the most similar name last.
    match known.or_else(|| similar.rsplit(", ").next().filter(|name| !name.is_empty()).map(str::to_owned)) {
        Some(command) => format!("did you mean `devport {command}`?"),
        None => "`devport --help` lists the commands".into(),
    }
}

/// Returns the hint for an argument that a command does not have, although users expect it to.
fn unknown_hint(error: &clap::Error, command: &str, argument: &str, help: String) -> String {
    match (command, argument) {
        ("stop", "-f" | "--file") => {
            "`devport down -f FILE` stops the stack of a file; or name the services: `devport stop api web`".into()
        }
        ("restart" | "rm" | "wait", "-f" | "--file") => {
            format!("this command reads no file; name the services, as in `devport {command} api web`")
        }
        ("start", "--all" | "-a") => {
            "`devport start` starts the services of this checkout; name those of others".into()
        }
        ("rm", "--all" | "-a") => "name the services to remove: `devport rm` also deletes their logs".into(),
        ("start" | "run", "-d" | "--background") => {
            "`devport start` runs in the background; `devport run` runs in this terminal".into()
        }
        _ => match plain(&text(error, ContextKind::SuggestedArg)) {
            // Clap means its own suggestion to be copied only if the argument is the first one after `--`.
            similar if similar.starts_with("--") && similar != "--" => format!("did you mean `{similar}`?"),
            _ if matches!(command, "start" | "run") => {
                format!("put the command after --, as in `devport {command} --key api -- npm run dev`")
            }
            _ => help,
        },
    }
}

/// Returns the message and the hint for arguments that are missing.
fn missing(command: &str, argument: &str, help: String) -> (String, String) {
    match (command, plain(argument).as_str()) {
        (_, "--tailnet") => ("--tailnet-name needs --tailnet".into(), help),
        ("logs", "--grep") => ("--ignore-case needs --grep".into(), help),
        (_, "TARGET" | "target") => (
            format!("`devport {command}` needs a service"),
            format!("name it, as in `devport {command} api`; `devport ls` lists the services"),
        ),
        (_, name) => (format!("`devport {command}` needs {name}"), help),
    }
}

/// Returns the message and the hint for a `start` or `run` with a key and words that are probably its command; `None` if
/// it has no key, or a `--` or a file.
fn without_dashes(command: &str, arguments: &[OsString]) -> Option<(String, String)> {
    let words: Vec<&str> = arguments.iter().skip(1).map(|word| word.to_str()).collect::<Option<_>>()?;
    let has = |short: &str, long: &str| words.iter().position(|word| word.starts_with(short) || word.starts_with(long));
    if !matches!(command, "start" | "run") || words.contains(&"--") || has("-f", "--file").is_some() {
        return None;
    }
    let key = has("-k", "--key")?;
    let has_value = words[key].contains('=') || (words[key].starts_with("-k") && words[key].len() > 2);
    let (options, line) = words.split_at_checked(key + if has_value { 1 } else { 2 })?;
    // Of other options, only clap knows which word is the value of one.
    let is_plain = options[..key].iter().all(|word| *word == command || word.starts_with('-'));
    let starts = line.first().is_some_and(|word| !word.starts_with('-'));
    let typed = format!("{} -- {}", shell_words::join(options), shell_words::join(line));
    let example = if is_plain && starts && shorten(&typed) == typed {
        typed
    } else {
        format!("{command} --key api -- npm run dev")
    };
    Some(("there is no command to run".into(), format!("put the command after --, as in `devport {example}`")))
}

/// Returns the message and the hint for two arguments that exclude each other.
fn conflict(one: &str, other: &str, command: &str, help: String) -> (String, String) {
    if one == other {
        return (format!("{one} may be given only once"), help);
    }
    let hint = match (command, [one, other]) {
        (_, pair) if pair.contains(&"TARGET") && matches!(command, "start" | "run") => format!(
            "a registered service keeps its options; to change them, put the command after --, as in \
             `devport {command} --key api -- npm run dev`"
        ),
        ("start", pair) if pair.contains(&"--file") => "write the option into the file".into(),
        _ => help,
    };
    // The option is the subject: it is what the user may want to leave out.
    let (one, other) = if matches!(one, "TARGET" | "--file") { (other, one) } else { (one, other) };
    (format!("{one} cannot be used with {other}"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Arguments;
    use clap::Parser;

    /// Returns message and hint for a command line that is refused.
    fn refused(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
        let refused = Arguments::try_parse_from(&words).expect_err(line);
        let error = error(&refused, &words).unwrap_or_else(|| panic!("{line}: {refused}"));
        format!("{error} | {}", error.hint().unwrap_or_default())
    }

    #[test]
    fn clap_s_errors_read_like_devport_s() {
        for (line, expected) in [
            ("devport status", "there is no command \"status\" | did you mean `devport ls`?"),
            ("devport strat", "there is no command \"strat\" | did you mean `devport start`?"),
            ("devport qqq", "there is no command \"qqq\" | `devport --help` lists the commands"),
            (
                "devport which",
                "`devport which` needs a service | name it, as in `devport which api`; `devport ls` lists the services",
            ),
            ("devport reserve", "`devport reserve` needs --key | `devport reserve --help` describes the options"),
            (
                "devport rm --all",
                "unexpected \"--all\" | name the services to remove: `devport rm` also deletes their logs",
            ),
            (
                "devport stop -f devport.yaml",
                "unexpected \"-f\" | `devport down -f FILE` stops the stack of a file; or name the services: `devport stop api web`",
            ),
            ("devport ls --wied", "unexpected \"--wied\" | did you mean `--wide`?"),
            ("devport ls --format xml", "--format cannot be \"xml\" | use one of auto, json, table"),
            ("devport start --key", "--key needs a value | `devport start --help` describes the options"),
            (
                "devport start --grace soon -- x",
                "invalid value for --grace: \"soon\" is not a duration up to 8784h (366 days); write it like 500ms, 30s or 5m | `devport start --help` describes the options",
            ),
            (
                "devport logs --since 300",
                "invalid value for --since: \"300\" has no unit, such as 300s | write `--since=300s`",
            ),
            ("devport start --wait 5 --key q -- x", "--wait 5 has no unit | write `--wait=5s`"),
            ("devport logs -i api", "--ignore-case needs --grep | `devport logs --help` describes the options"),
            (
                "devport start --port 80 -- x",
                "invalid value for --port: 80 is not in 1024..=65535 | `devport start --help` describes the options",
            ),
            (
                "devport start --no-port --port 3000 -- x",
                "--no-port cannot be used with --port | `devport start --help` describes the options",
            ),
            (
                "devport start --tailnet-name x -- x",
                "--tailnet-name needs --tailnet | `devport start --help` describes the options",
            ),
            (
                "devport start -f x.yaml --grace 5s",
                "--grace cannot be used with --file | write the option into the file",
            ),
        ] {
            assert_eq!(refused(line), expected, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_combined_is_explained() {
        for (line, expected) in [
            (
                "devport start --replace -k x node server.js",
                "there is no command to run | put the command after --, as in `devport start --replace -k x -- node server.js`",
            ),
            (
                "devport run --key=x --restart never node server.js",
                "unexpected \"server.js\" | put the command after --, as in `devport run --key api -- npm run dev`",
            ),
            (
                "devport start -k x sh echo;$HOME",
                "there is no command to run | put the command after --, as in `devport start -k x -- sh 'echo;$HOME'`",
            ),
            (
                "devport start -kx npm run dev",
                "there is no command to run | put the command after --, as in `devport start -kx -- npm run dev`",
            ),
            (
                "devport start node --key x server.js",
                "there is no command to run | put the command after --, as in `devport start --key api -- npm run dev`",
            ),
            (
                "devport start --key x --port 3000 --no-port",
                "--port cannot be used with --no-port | `devport start --help` describes the options",
            ),
            (
                "devport start --key x --key y",
                "--key may be given only once | `devport start --help` describes the options",
            ),
            (
                "devport start --no-port --no-port -- x",
                "--no-port may be given only once | `devport start --help` describes the options",
            ),
            (
                "devport start --all",
                "unexpected \"--all\" | `devport start` starts the services of this checkout; name those of others",
            ),
            (
                "devport start y2 --restart never",
                "--restart cannot be used with TARGET | a registered service keeps its options; to change them, put the command after --, as in `devport start --key api -- npm run dev`",
            ),
        ] {
            assert_eq!(refused(line), expected, "{line}");
        }
    }
}
