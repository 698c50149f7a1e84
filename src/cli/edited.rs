//! Notes that the file of a stack was edited since `up`: `start NAME` and `restart` use what was registered.

use std::path::{Path, PathBuf};

use crate::cli::context::Context;
use crate::cli::output::note;
use crate::cli::stack::Located;
use crate::error::{Error, Result};
use crate::registry::Reservation;

/// Notes in what services of stacks differ from their files. Reads each file once.
pub(super) fn note_edits<'a>(context: &Context, services: impl IntoIterator<Item = &'a Reservation>) {
    let mut files: Vec<(PathBuf, Result<Located>)> = Vec::new();
    for service in services {
        let Some(file) = service.file.as_ref().filter(|_| service.stack.is_some()) else { continue };
        let index = files.iter().position(|(path, _)| path == file).unwrap_or_else(|| {
            files.push((file.clone(), Located::find(context, Some(file))));
            files.len() - 1
        });
        let note_failure = |error: &Error| {
            // The first mistake in the file is enough for a note.
            let why = error.lines().into_iter().next().unwrap_or_default();
            note(&format!("could not compare {} with its file: {why}", service.name()));
        };
        match &files[index].1 {
            Ok(located) => match describe_edit(context, service, file, located) {
                Ok(edit) => edit.iter().for_each(|text| note(text)),
                Err(error) => note_failure(&error),
            },
            Err(error) => note_failure(error),
        }
    }
}

/// Returns the note for a service that differs from its file; `None` if it does not.
///
/// # Errors
/// If what the file declares cannot be resolved, such as a missing dotenv file.
fn describe_edit(context: &Context, service: &Reservation, file: &Path, located: &Located) -> Result<Option<String>> {
    let (name, file) = (service.name(), file.display());
    let declared = service.key.as_ref().map_or(Ok(None), |key| located.service_with_key(key))?;
    let Some(declared) = declared else {
        return Ok(Some(format!("{file} no longer has {name}; `devport rm {name}` removes it")));
    };
    let spec = located.spec(context, declared, &located.known_ports(context)?)?;
    let differences = context.launcher().compare(&spec)?.differences;
    Ok((!differences.is_empty()).then(|| {
        let differences: Vec<&str> = differences.iter().map(|difference| difference.now.as_str()).collect();
        let differences = differences.join(" and ");
        format!("{name} still has {differences}; `devport up -d {}` applies the changes of {file}", declared.name)
    }))
}
