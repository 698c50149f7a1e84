//! What the user can do about an error.

use std::io;
use std::path::Path;

use shell_words::quote;

use super::Error;

impl Error {
    /// Returns what the user can do about it; `None` if the message says everything.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, path, .. } => io_hint(source, path),
            Self::Usage { hint, .. }
            | Self::PortTaken { hint, .. }
            | Self::PortFixed { hint, .. }
            | Self::CannotAttach { hint, .. }
            | Self::KeyElsewhere { hint, .. }
            | Self::CheckoutGone { hint, .. }
            | Self::NoCommand { hint, .. }
            | Self::NotInTime { hint, .. }
            | Self::InvalidLines { hint, .. } => Some(hint.clone()),
            Self::InvalidFile { hint, .. } | Self::StartFailed { hint, .. } => hint.clone(),
            Self::Tailnet(error) => error.hint(),
            _ => self.standard_hint(),
        }
    }

    /// Returns the hint for an error that carries none itself.
    fn standard_hint(&self) -> Option<String> {
        let hint = match self {
            Self::InvalidKey { .. } => "a key has 1 to 128 bytes, no control characters and no leading dash".into(),
            Self::NotUtf8 { .. } => {
                "rename it or unset it: devport stores commands, paths and variables as UTF-8".into()
            }
            Self::InvalidPortRange { .. } => "set it to FIRST-LAST within 1024-65535, such as 19000-19999".into(),
            Self::InvalidSignal { .. } => "use a name such as HUP or SIGUSR1, or a number; `kill -l` lists them".into(),
            Self::NoHome => "set HOME, or DEVPORT_HOME to an absolute path".into(),
            Self::MissingHome { .. } => "create it, or set HOME to your home directory".into(),
            Self::Unwritable { base, .. } => sandbox_hint(base),
            Self::InvalidDirectory { path, .. } => directory_hint(path),
            Self::NoSuchService { target, .. } if is_yaml(target) => {
                "name a service; only `devport start -f`, `up -f` and `down -f` read a file".into()
            }
            Self::NoSuchService { nearest, .. } | Self::PrefixTooShort { nearest, .. } => {
                did_you_mean(nearest).unwrap_or_else(|| "`devport ls` lists the services".into())
            }
            Self::NoServicesHere { verb: "start", up: Some(up), .. } => format!("start those of its file with `{up}`"),
            Self::NoServicesHere { verb: "start", .. } => {
                "put a command after --, as in `devport start --key api -- npm run dev`".into()
            }
            Self::NeverStarted { command, .. } => format!("start it with `{command}`"),
            Self::NoServicesHere { verb, .. } => {
                format!("name a service, or use `devport {verb} --all` for those of the whole machine")
            }
            Self::UnusedPort { nearest, .. } => did_you_mean(nearest)?,
            Self::NoSuchEntry { nearest, keys, .. } => {
                did_you_mean(nearest).or_else(|| (!keys.is_empty()).then(|| format!("it has {}", keys.join(", "))))?
            }
            Self::Ambiguous { .. } => "type a longer prefix of the hash, or the key".into(),
            Self::HashCollision { .. } => "choose another key".into(),
            Self::PortReserved { removable, .. } => reserved_hint(removable.as_deref()),
            Self::PortOfCheck { .. } => {
                "write only the path, such as http:/healthz: a check queries the port of its service".into()
            }
            Self::PoolExhausted { .. } => {
                "remove services that you no longer need with `devport rm`, or set DEVPORT_PORT_RANGE to a larger range"
                    .into()
            }
            _ => return self.state_hint(),
        };
        Some(hint)
    }

    /// Returns the hint for an error about a record, a lock, a process or a state.
    fn state_hint(&self) -> Option<String> {
        let hint = match self {
            Self::CorruptRecord { path, .. } => {
                format!("repair it, or move it away with `mv {0} {0}.broken`", path.display())
            }
            Self::NewerRecord { .. } => "upgrade devport".into(),
            Self::ForeignDirectory { .. } => {
                "run devport as that user, or set DEVPORT_HOME to your own directory".into()
            }
            Self::LockBusy { .. } => "try again; if that process hangs, kill it first".into(),
            Self::StillStopping { service, .. } => {
                format!("try again, or stop it at once with `devport stop --kill {}`", quote(service))
            }
            Self::UnknownSupervisor { .. } => "wait a moment and try again".into(),
            Self::UnprovenOrphan { .. } => {
                "check the process with `ps`; if it belongs to the service, kill it; then try again".into()
            }
            Self::TmuxSilent { .. } => {
                "check it with `ps`: it may be busy, or stopped (`kill -CONT PID` resumes it)".into()
            }
            Self::NotRunning { service } => format!("start it with `devport start {}`", quote(service)),
            Self::NoProcess { service, .. } => format!("`devport signal {}` starts it now", quote(service)),
            Self::NoPort { service } => format!("`devport which {}` shows its details", quote(service)),
            Self::NoSuchVariable { service, .. } => format!("`devport env {}` lists its variables", quote(service)),
            Self::NoBrowser { .. } => "open it by hand, or set BROWSER to a program".into(),
            Self::NoStackFile { .. } => {
                "name a file with -f, or write one, such as `services: {web: {exec: npm run dev}}`; `devport start` and \
                 `devport stop` need none"
                    .into()
            }
            Self::DanglingCheckout { .. } => "run `git worktree repair` in the main checkout".into(),
            Self::NoSuchRun { service, .. } => format!("`devport logs {}` prints every run that its log has", quote(service)),
            // The other messages say everything, or the error carries its hint.
            _ => return None,
        };
        Some(hint)
    }
}

/// Returns whether a target is the name of a file that `start -f` reads.
fn is_yaml(target: &str) -> bool {
    Path::new(target).extension().is_some_and(|ending| ending == "yaml" || ending == "yml")
}

/// Returns the question whether one of the similar names was meant; `None` if there are none.
fn did_you_mean(nearest: &[String]) -> Option<String> {
    (!nearest.is_empty()).then(|| format!("did you mean {}?", nearest.join(" or ")))
}

/// Returns what to do about a working directory that cannot be used.
fn directory_hint(path: &Path) -> String {
    if path.to_string_lossy().contains('$') {
        return "variables are not replaced in a directory: write ~ for the home directory, or a relative path".into();
    }
    "create it, or choose another directory".into()
}

/// Returns the hint for a state directory that a sandbox protects. It does not suggest another one: two registries would
/// assign one port twice, and not see each other's services.
fn sandbox_hint(base: &Path) -> String {
    // The settings are those of https://developers.openai.com/codex/config-reference and
    // https://code.claude.com/docs/en/sandboxing.
    format!(
        "this looks like a sandbox or a read-only mount: allow writing to {} (Codex: \
         `sandbox_workspace_write.writable_roots`, Claude Code: `sandbox.filesystem.allowWrite`); `devport ls`, \
         `which`, `url` and `logs` work without it",
        base.display()
    )
}

/// Returns the hint for a port that another service has. `removable` is the target of a service that this user's
/// checkout may remove.
fn reserved_hint(removable: Option<&str>) -> String {
    let other = "choose another port, or remove `port:` or `--port`, so that devport assigns one";
    let free =
        removable.map(|target| format!("{other}; `devport rm {}` frees this one, and deletes its log", quote(target)));
    free.unwrap_or_else(|| other.into())
}

/// Returns the hint for failures of the file system that have one.
fn io_hint(error: &io::Error, path: &Path) -> Option<String> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("free some space, then try again; `devport ls`, `stop` and `logs` still work".into())
        }
        io::ErrorKind::PermissionDenied => {
            let existing = path.ancestors().find(|path| path.exists()).unwrap_or(path);
            Some(format!("check the permissions with `ls -ld {}`", existing.display()))
        }
        _ => None,
    }
}
