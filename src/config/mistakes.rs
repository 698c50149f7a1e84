//! `Mistakes`: everything that is wrong in one file, so that one reading reports all of it.

use std::path::Path;

use crate::error::{Error, Mistake, Result};

/// The most mistakes that are reported: more are usually one cause, such as the wrong file.
const MOST: usize = 20;

/// The mistakes found in a file so far.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Adds a mistake. `line` counts from 1; `what` never contains the value of a variable.
    pub(super) fn add(&mut self, line: usize, what: impl Into<String>) {
        self.0.push(Mistake { line, what: what.into() });
    }

    /// Adds the error of a result; returns its value.
    pub(super) fn keep<T>(&mut self, line: usize, result: std::result::Result<T, String>) -> Option<T> {
        result.map_err(|what| self.add(line, what)).ok()
    }

    /// Returns whether a suggestion for another mistake is worth its time: only the first mistakes are reported, and the
    /// wrong file may have a hundred thousand.
    pub(super) fn wants_suggestions(&self) -> bool {
        self.0.len() < 10 * MOST
    }

    /// Returns `value` if there are no mistakes. The hint belongs to the mistakes.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] with the only mistake, or [`Error::InvalidLines`] with all, in the order of their lines.
    pub(super) fn or<T>(mut self, path: &Path, hint: &str, value: T) -> Result<T> {
        self.0.sort_by_key(|mistake| mistake.line);
        match self.0.len() {
            0 => Ok(value),
            1 => {
                let Mistake { line, what } = self.0.remove(0);
                Err(Error::InvalidFile { path: path.to_owned(), line: Some(line), why: what, hint: Some(hint.into()) })
            }
            count => {
                self.0.truncate(MOST);
                let omitted = count.saturating_sub(MOST);
                Err(Error::InvalidLines { path: path.to_owned(), mistakes: self.0, omitted, hint: hint.into() })
            }
        }
    }
}
