//! The command line: clap's arguments and one file per command. Only this folder knows clap.

mod args;
mod attach;
mod batch;
mod context;
mod facts;
mod logs;
mod ls;
mod picker;
mod policy;
mod restart;
mod rm;
mod run;
mod signal;
mod start;
mod stop;
mod tailnet;
mod wait;
mod which;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::config::CallerEnvironment;
use crate::error::{Error, Result};

pub(crate) use context::{CallerContext, Context};

/// Does what the arguments say.
///
/// # Errors
/// What went wrong, to be printed once.
pub(crate) fn dispatch(arguments: &[OsString], caller_context: CallerContext) -> Result<ExitCode> {
    // A supervisor that was launched does not need clap, and shall not keep its memory.
    if let Some(launched) = run::Launched::parse(arguments) {
        return run::launched(&launched, caller_context);
    }
    match args::Arguments::try_parse_from(arguments) {
        Ok(parsed) => execute(parsed, caller_context),
        Err(error) => {
            // Help and version go to standard output and are no errors; clap knows which is which.
            let printed = error.print();
            drop(printed);
            Ok(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)))
        }
    }
}

/// Executes one command.
fn execute(parsed: args::Arguments, mut caller_context: CallerContext) -> Result<ExitCode> {
    use args::Command;
    for directory in &parsed.directories {
        caller_context.enter(directory)?;
    }
    let mut context = Context::new(caller_context, parsed.format())?;
    let done = match parsed.command {
        Command::Start(start) => start::execute(&mut context, start),
        Command::Run(run) => run::execute(&mut context, run),
        Command::Ls(ls) => ls::execute(&mut context, &ls),
        Command::Which(which) => which::execute(&mut context, &which),
        Command::Stop(stop) => stop::execute(&mut context, &stop),
        Command::Restart(restart) => restart::execute(&mut context, &restart),
        Command::Signal(signal) => signal::execute(&mut context, &signal),
        Command::Rm(rm) => rm::execute(&mut context, &rm),
        Command::Attach(attach) => attach::execute(&mut context, &attach),
        Command::Logs(logs) => logs::execute(&mut context, &logs),
        Command::Wait(wait) => wait::execute(&mut context, &wait),
        Command::Port(target) => facts::port(&mut context, &target),
        Command::Url(target) => facts::url(&mut context, &target),
        Command::Open(target) => facts::open(&mut context, &target),
        Command::Env(env) => facts::env(&mut context, &env),
        Command::Reserve(reserve) => facts::reserve(&mut context, reserve),
        Command::Tailup(tailup) => tailnet::up(&mut context, tailup),
        Command::Taildown(target) => tailnet::down(&mut context, &target),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// What `main` reads at the edge.
impl CallerContext {
    /// The environment, the directory and the program as the system hands them over; `cwd` and `program` are
    /// `None` if it does not know.
    pub(crate) fn new(environment: CallerEnvironment, cwd: Option<PathBuf>, program: Option<PathBuf>) -> Self {
        Self { environment, cwd, program }
    }

    /// Goes to another directory, for this whole process: relative paths are relative to it from now on.
    fn enter(&mut self, directory: &Path) -> Result<()> {
        std::env::set_current_dir(directory).map_err(Error::io("go to", directory))?;
        self.cwd = Some(Path::new(".").canonicalize().map_err(Error::io("look at", directory))?);
        Ok(())
    }
}
