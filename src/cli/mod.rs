//! The command line: clap's arguments and one file per command. Only this folder uses clap.

mod args;
mod attach;
mod batch;
mod context;
mod down;
mod edited;
mod env;
mod foreign_values;
mod last_output;
mod log_stream;
mod logs;
mod ls;
mod missing_tmux;
mod open;
mod output;
mod overview;
mod own_stack;
mod picker;
mod policy;
mod port;
mod recheck;
mod reserve;
mod restart;
mod rm;
mod run;
mod screen;
mod signal;
mod stack;
mod start;
mod stop;
mod tailnet;
mod teardown;
mod up;
mod url;
mod usage;
mod wait;
mod which;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::context::Context;
use crate::error::{Error, Result};

pub(crate) use context::CallerContext;

/// Parses the arguments and executes the command that they name.
///
/// # Errors
/// Why the command failed. The caller prints it.
pub(crate) fn dispatch(arguments: &[OsString], caller: CallerContext) -> Result<ExitCode> {
    // Parse the supervisor's fixed arguments without clap: a supervisor runs for days, and clap's tables would stay in
    // its memory.
    if let Some(launched) = run::Launched::parse(arguments) {
        return run::launched(&launched, caller);
    }
    if let Some(error) = usage::nothing_after_dashes(arguments) {
        return Err(error);
    }
    match args::Arguments::try_parse_from(args::join_wait(arguments)) {
        Ok(parsed) => execute(parsed, caller).map_err(|error| match &error {
            Error::NoSuchService { target, .. } | Error::PrefixTooShort { target, .. } => {
                usage::unit_of_wait(arguments, Some(target)).unwrap_or(error)
            }
            _ => error,
        }),
        Err(refused) => match usage::error(&refused, arguments) {
            Some(error) => Err(error),
            None => {
                // Clap prints help and version on standard output, and the help of a wrong command line on standard error.
                let _ = refused.print();
                Ok(ExitCode::from(u8::try_from(refused.exit_code()).unwrap_or(2)))
            }
        },
    }
}

fn execute(parsed: args::Arguments, mut caller: CallerContext) -> Result<ExitCode> {
    use args::Command;
    for directory in &parsed.directories {
        caller.enter(directory)?;
    }
    let context = &Context::new(caller, parsed.format())?;
    let result = match parsed.command {
        Command::Start(mut start) => match start.file.take() {
            Some(file) => batch::execute(context, &file, &start),
            None => start::execute(context, start),
        },
        Command::Run(run) => run::execute(context, run),
        Command::Up(up) => up::execute(context, &up),
        Command::Down(down) => down::execute(context, &down),
        Command::Ls(ls) => ls::execute(context, &ls),
        Command::Which(which) => which::execute(context, &which),
        Command::Stop(stop) => stop::execute(context, &stop),
        Command::Restart(restart) => restart::execute(context, &restart),
        Command::Signal(signal) => signal::execute(context, &signal),
        Command::Rm(rm) => rm::execute(context, &rm),
        Command::Attach(attach) => attach::execute(context, &attach),
        Command::Logs(logs) => logs::execute(context, &logs),
        Command::Wait(wait) => wait::execute(context, &wait),
        Command::Port(target) => port::execute(context, &target),
        Command::Url(target) => url::execute(context, &target),
        Command::Open(target) => open::execute(context, &target),
        Command::Env(env) => env::execute(context, &env),
        Command::Reserve(reserve) => reserve::execute(context, reserve),
        Command::Tailup(tailup) => tailnet::up(context, tailup),
        Command::Taildown(target) => tailnet::down(context, &target),
    };
    result.map(|()| ExitCode::SUCCESS).map_err(|error| own_stack::explain(context, error))
}
