//! `Follower`: reads the lines that are added to a log, across rotation.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::logs::decoder::{Decoder, Line};
use crate::logs::part::{self, Part};

/// Reads the lines that are added to a log.
#[derive(Debug)]
pub(crate) struct Follower {
    path: PathBuf,
    /// The part that is being read; `None` while there is none.
    part: Option<Part>,
    /// Splits its bytes into lines.
    decoder: Decoder,
    /// Whether the log was missing at the last check.
    was_missing: bool,
}

impl Follower {
    /// Continues to read `part` where `decoder` has stopped.
    pub(super) fn new(path: &Path, part: Option<Part>, decoder: Decoder) -> Self {
        Self { path: path.to_owned(), part, decoder, was_missing: false }
    }

    /// Returns the decoder, which may hold a line without an end.
    pub(super) fn into_decoder(self) -> Decoder {
        self.decoder
    }

    /// Returns every line that was completed since the last call. Follows the log through rotation.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read.
    pub(crate) fn next(&mut self) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        loop {
            // Check before reading: bytes that are written after the rotation are in the next part.
            let current = part::current(&self.path);
            let is_current = current.is_none_or(|id| self.part.as_ref().is_some_and(|part| part.id == id));
            if let Some(part) = &mut self.part {
                read_part(part, &mut self.decoder, &mut |line| lines.push(line))?;
            }
            if is_current {
                return Ok(lines);
            }
            let Some(next) = self.next_part()? else { return Ok(lines) };
            lines.extend(self.decoder.end_part());
            self.part = Some(next);
        }
    }

    /// Opens the part after the current one; the oldest if the current one was deleted. `None` if there is none.
    fn next_part(&self) -> Result<Option<Part>> {
        let parts = part::open_all(&self.path)?;
        let current = self.part.as_ref().and_then(|part| parts.iter().position(|other| other.id == part.id));
        Ok(parts.into_iter().nth(current.map_or(0, |index| index + 1)))
    }

    /// Returns whether the log was deleted, which two calls in a row must find: rotation too removes it for a moment.
    pub(crate) fn is_deleted(&mut self) -> bool {
        let is_missing = self.part.is_some() && !self.path.exists();
        std::mem::replace(&mut self.was_missing, is_missing) && is_missing
    }
}

/// Reads every complete line to the end of a part.
pub(super) fn read_part(part: &mut Part, decoder: &mut Decoder, take: &mut dyn FnMut(Line)) -> Result<()> {
    while let Some(line) = decoder.next(&mut part.reader).map_err(Error::io("read", &part.path))? {
        take(line);
    }
    Ok(())
}
