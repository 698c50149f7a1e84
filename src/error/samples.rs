//! One sample of every error, printed as the user reads it, so that all texts can be read and compared in one place.

use std::io;

use super::*;

/// The printed samples. A text that changes must be changed here too.
const TEXTS: &str = include_str!("samples.txt");

fn denied() -> io::Error {
    io::Error::from_raw_os_error(libc::EACCES)
}

/// Returns the place of an error in [`samples`]. The compiler demands a place for every variant.
#[rustfmt::skip]
fn place(error: &Error) -> usize {
    match error {
        Error::Io { .. } => 0, Error::Unwritable { .. } => 1, Error::MissingHome { .. } => 2, Error::System { .. } => 3,
        Error::Usage { .. } => 4, Error::InvalidKey { .. } => 5, Error::NotUtf8 { .. } => 6,
        Error::InvalidPortRange { .. } => 7, Error::InvalidSignal { .. } => 8, Error::NoHome => 9,
        Error::InvalidFile { .. } => 10, Error::InvalidDirectory { .. } => 11, Error::NoSuchService { .. } => 12,
        Error::NoSuchEntry { .. } => 13, Error::PrefixTooShort { .. } => 14, Error::Ambiguous { .. } => 15,
        Error::UnusedPort { .. } => 16, Error::HashCollision { .. } => 17, Error::KeyElsewhere { .. } => 18,
        Error::PortReserved { .. } => 19, Error::PortTaken { .. } => 20, Error::PortOfCheck { .. } => 21,
        Error::PortFixed { .. } => 22, Error::PoolExhausted { .. } => 23, Error::CorruptRecord { .. } => 24,
        Error::NewerRecord { .. } => 25, Error::ForeignDirectory { .. } => 26, Error::LockBusy { .. } => 27,
        Error::StartFailed { .. } => 28, Error::CommandEnded { .. } => 29, Error::StillStopping { .. } => 30,
        Error::UnknownSupervisor { .. } => 31, Error::UnprovenOrphan { .. } => 32, Error::NoPort { .. } => 33,
        Error::NoCommand { .. } => 34, Error::NoSuchRun { .. } => 35, Error::NoBrowser { .. } => 36,
        Error::NotRunning { .. } => 37, Error::NoProcess { .. } => 38, Error::CannotAttach { .. } => 39,
        Error::Tmux { .. } => 40, Error::TmuxSilent { .. } => 41, Error::SomeFailed { .. } => 42,
        Error::SomeUnread { .. } => 43, Error::NotInTime { .. } => 44, Error::NotAllInTime { .. } => 45,
        Error::Cancelled => 46, Error::ClosedOutput => 47, Error::InvalidLines { .. } => 48,
        Error::CheckoutGone { .. } => 49, Error::NotCompleted { .. } => 50, Error::SomeNotUp { .. } => 51,
        Error::NoStackFile { .. } => 52, Error::WouldChange => 53, Error::DanglingCheckout { .. } => 54,
        Error::NoMainCheckout { .. } => 55, Error::Interrupted { .. } => 56, Error::NoServicesHere { .. } => 57,
        Error::NeverStarted { .. } => 58, Error::NoSuchVariable { .. } => 59,
        Error::Tailnet(error) => 60 + tailnet::samples::place(error),
    }
}

/// Returns one error of every variant, or several if its text differs.
fn samples() -> Vec<Error> {
    let api = || "api".to_owned();
    let mut samples = files();
    samples.extend(targets());
    samples.extend(stacks());
    samples.extend([
        Error::PortReserved { port: 5432, owner: "db in ~/shop".into(), removable: Some("db".into()) },
        Error::PortTaken { port: 3000, owner: "pid 7 (nginx)".into(), hint: "choose another port".into() },
        Error::PortOfCheck { service: api(), other: 3000, port: 19001 },
        Error::PortFixed { service: api(), port: 19001, hint: "remove it".into() },
        Error::PoolExhausted { first: 19000, last: 19999, reserved: 998, listening: 2 },
        Error::LockBusy { what: "the lock of api".into(), holder: "pid 7 (devport)".into(), waited_s: 10 },
        Error::StartFailed { service: api(), why: "npn: command not found in its PATH".into(), hint: None },
        Error::CommandEnded { service: api(), why: "exit code 3".into(), code: 3 },
        Error::StillStopping { service: api(), waited_s: 10, left: "pid 7 (node)".into() },
        Error::UnknownSupervisor { service: api(), why: "its lock is held, but names no process that holds it".into() },
        Error::UnprovenOrphan { service: api(), process: "pid 7 (node)".into() },
        Error::NoPort { service: api() },
        Error::NoSuchVariable { service: api(), name: "DATABASE_URL".into() },
        Error::NoCommand { service: "db".into(), hint: "start it with `devport start --key db -- npm run dev`".into() },
        Error::NoSuchRun { service: api(), run: "run 9".into(), kept: "it has runs 1 to 3".into() },
        Error::NoBrowser { url: "http://localhost:19001".into(), why: "could not find xdg-open".into() },
        Error::NotRunning { service: api() },
        Error::NoProcess { service: api(), state: "backoff" },
        Error::CannotAttach {
            service: api(),
            why: "it has no tmux window".into(),
            hint: "`devport logs -f api` follows its output".into(),
        },
        Error::Tmux { command: "new-window", message: "no server running".into() },
        Error::TmuxSilent { waited_s: 10 },
        Error::SomeFailed { failed: 1, total: 2 },
        Error::SomeUnread { missing: 1 },
        Error::SomeUnread { missing: 2 },
        Error::NotInTime {
            service: api(),
            state: "ready",
            waited_s: Some(5.5),
            why: "it is starting".into(),
            hint: "`devport logs api` shows more".into(),
        },
        Error::NotInTime {
            service: api(),
            state: "ready",
            waited_s: None,
            why: "it is stopped".into(),
            hint: "start it with `devport start --wait api`".into(),
        },
        Error::NotAllInTime { state: "ready", failed: 1, total: 2 },
        Error::Cancelled,
        Error::ClosedOutput,
    ]);
    samples.extend(tailnet::samples::all().into_iter().map(Error::Tailnet));
    samples
}

/// Returns the errors about stacks and checkouts.
fn stacks() -> Vec<Error> {
    let mistake = |line, what: &str| Mistake { line, what: what.into() };
    let root = || PathBuf::from("/home/me/shop");
    vec![
        Error::InvalidLines {
            path: "devport.yaml".into(),
            mistakes: vec![
                mistake(2, "the command is empty"),
                mistake(7, "unknown field `prot`, did you mean `port`?"),
            ],
            omitted: 3,
            hint: "`devport up --help` lists every field".into(),
        },
        Error::CheckoutGone {
            service: "web".into(),
            root: root(),
            hint: "`devport rm b7d` stops and removes it".into(),
        },
        Error::NotCompleted { service: "migrate".into(), why: "exit code 1 after 0.2 s".into() },
        Error::SomeNotUp { failed: 1, total: 3 },
        Error::NoStackFile { directory: root().join("web"), root: root() },
        Error::WouldChange,
        Error::Interrupted { signal: "SIGINT".into(), code: 130 },
        Error::DanglingCheckout { root: root() },
        Error::NoMainCheckout { service: "db".into(), root: root() },
    ]
}

/// Returns the errors about files and directories.
fn files() -> Vec<Error> {
    let path = || PathBuf::from("/home/me/x");
    vec![
        Error::Io { verb: "read", path: "/nonexistent/x".into(), source: denied() },
        Error::Io { verb: "write", path: path(), source: io::Error::from_raw_os_error(libc::ENOSPC) },
        Error::Unwritable { verb: "write", path: path(), base: "/home/me".into(), source: denied() },
        Error::MissingHome { home: "/home/me".into(), source: denied() },
        Error::System { verb: "check port 3000".into(), source: denied() },
        Error::Usage { message: "--watch needs a terminal".into(), hint: "use `devport ls --json` in a script".into() },
        Error::InvalidKey { key: "-a".into(), why: "starts with a dash" },
        Error::NotUtf8 { what: "the path".into(), lossy: "caf\u{fffd}".into() },
        Error::InvalidPortRange { value: "0-9".into() },
        Error::InvalidSignal { name: "NOPE".into() },
        Error::NoHome,
        Error::InvalidFile {
            path: "devport.yaml".into(),
            line: Some(7),
            why: "the command is empty".into(),
            hint: None,
        },
        Error::InvalidDirectory { path: path(), why: "does not exist".into() },
        Error::InvalidDirectory { path: "/home/me/$HOME".into(), why: "does not exist".into() },
        Error::CorruptRecord { path: path(), why: "it ends too early".into() },
        Error::NewerRecord { path: path(), schema: 2 },
        Error::ForeignDirectory { path: path(), owner: 0, me: 1000 },
    ]
}

/// Returns the errors about targets and keys.
fn targets() -> Vec<Error> {
    let keys = || vec!["web".to_owned(), "worker".to_owned()];
    vec![
        Error::NoSuchService { target: "wbe".into(), nearest: keys() },
        Error::NoSuchService { target: "xyz".into(), nearest: vec![] },
        Error::NoSuchService { target: "devport.yaml".into(), nearest: vec![] },
        Error::NeverStarted {
            service: "shop/web".into(),
            file: "/home/me/shop/devport.yaml".into(),
            command: "devport up -d web".into(),
        },
        Error::NoServicesHere { checkout: "~/shop".into(), verb: "stop", up: None },
        Error::NoServicesHere { checkout: "~/shop".into(), verb: "start", up: None },
        Error::NoServicesHere { checkout: "~/shop".into(), verb: "start", up: Some("devport up -d".into()) },
        Error::NoSuchEntry {
            key: "wbe".into(),
            path: "devport.yaml".into(),
            nearest: vec!["web".into()],
            keys: keys(),
        },
        Error::NoSuchEntry { key: "db".into(), path: "devport.yaml".into(), nearest: vec![], keys: keys() },
        Error::PrefixTooShort { target: "b7".into(), nearest: vec![] },
        Error::Ambiguous { target: "b7d".into(), matches: vec!["b7d1 (api)".into(), "b7d2 (web)".into()] },
        Error::UnusedPort { port: 3000, nearest: Vec::new() },
        Error::UnusedPort { port: 3001, nearest: vec!["p3001".into()] },
        Error::HashCollision { key: "a".into(), hash: "b7d1024794".into(), other: "b".into() },
        Error::KeyElsewhere {
            key: "web".into(),
            owner: "~/shop".into(),
            state: Some("ready, port 19000".into()),
            here: "~/feat".into(),
            hint: "choose another key for this checkout, such as web-feat".into(),
        },
    ]
}

#[test]
fn every_error_reads_as_recorded() {
    let samples = samples();
    let mut places: Vec<usize> = samples.iter().map(place).collect();
    places.sort_unstable();
    places.dedup();
    let count = 60 + tailnet::samples::COUNT;
    assert_eq!(places, (0..count).collect::<Vec<_>>(), "a variant has no sample");
    let print = |error: &Error| {
        let hint = error.hint().map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
        format!("devport: {}\n{hint}", error.lines().join("\ndevport: "))
    };
    let printed: String = samples.iter().map(print).collect();
    assert_eq!(printed, TEXTS, "copy this into src/error/samples.txt if it reads well:\n{printed}");
}

#[test]
fn every_error_is_a_fragment_and_every_hint_one_too() {
    for error in samples() {
        for text in [Some(error.to_string()), error.hint()].into_iter().flatten() {
            assert!(!text.ends_with('.') && !text.contains("  ") && !text.is_empty(), "{text}");
            assert!(
                !text.starts_with(|c: char| c.is_uppercase())
                    || text.starts_with("DEVPORT_")
                    || text.starts_with("HTTPS")
                    || text.starts_with("TAILSCALE_"),
                "{text}"
            );
        }
    }
}
