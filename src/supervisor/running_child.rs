//! `RunningChild`: the service's command, from its start until no process of its tree is left.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use nix::errno::Errno;

use crate::os::process::ProcessIdentity;
use crate::os::{clock, terminal};
use crate::registry::{Exit, ExitHow};
use crate::supervisor::stream::Stream;

/// How many times a drain reads each stream, at 64 KiB per read. Linux buffers 64 KiB in a pipe (`pipe(7)`) and less
/// in a terminal, so this is ample; the limit keeps a descendant that never stops writing from blocking the loop.
const DRAIN_PASSES: usize = 64;
/// The end-of-file character of a terminal whose settings cannot be read: ctrl-d.
const DEFAULT_END_OF_FILE: u8 = 4;

/// Receives the output of a child.
pub(super) trait OutputSink {
    /// Returns whether the child must wait before it may write more.
    fn is_full(&self) -> bool;

    /// Takes bytes that the child wrote to standard output (or its terminal) or to standard error.
    fn accept(&mut self, bytes: &[u8], is_errors: bool);
}

/// The command of a service, or the process that it has handed over to. It stays the current child after it has exited,
/// because its descendants may still run and write to its streams.
#[derive(Debug)]
pub(super) struct RunningChild {
    pub(super) identity: ProcessIdentity,
    /// When it was started, by the clock that does not jump.
    pub(super) since: Instant,
    /// Whether it has exited and was reaped.
    has_exited: bool,
    /// Whether the system reports its end to this process. `false` only after a hand-over to a process that is not our
    /// child.
    is_ours: bool,
    streams: Vec<Stream>,
    /// Input that its terminal has not accepted yet.
    pending_input: Vec<u8>,
    /// Reused for every read.
    buffer: Vec<u8>,
}

impl RunningChild {
    /// Holds a child that was started just now, with our ends of its streams.
    pub(super) fn new(identity: ProcessIdentity, streams: Vec<Stream>) -> Self {
        let since = clock::now();
        Self {
            identity,
            since,
            has_exited: false,
            is_ours: true,
            streams,
            pending_input: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Returns whether the command itself has not been reaped yet, so that its pid cannot belong to another process.
    pub(super) fn is_running(&self) -> bool {
        !self.has_exited
    }

    /// Continues with another process of the tree in place of the command, which was reaped. `is_ours` says whether that
    /// process is our child.
    pub(super) fn hand_over(&mut self, successor: ProcessIdentity, is_ours: bool) {
        self.identity = successor;
        self.is_ours = is_ours;
    }

    /// Returns whether its end must be polled for, because the system does not report it.
    pub(super) fn needs_polling(&self) -> bool {
        !self.has_exited && !self.is_ours
    }

    /// Marks the command as exited. This is the only place that measures how long it ran.
    pub(super) fn end(&mut self, how: ExitHow) -> Exit {
        let ran = clock::now().saturating_duration_since(self.since);
        self.has_exited = true;
        self.pending_input.clear();
        Exit::new(clock::wall(), how, ran)
    }

    /// Passes on what each stream holds now, unless the sink is full.
    pub(super) fn relay(&mut self, sink: &mut dyn OutputSink) {
        for stream in &mut self.streams {
            if sink.is_full() {
                return;
            }
            relay_stream(stream, &mut self.buffer, sink);
        }
    }

    /// Passes on all output that was written before this call, even if the sink is full: a slow terminal must not
    /// keep the last lines of a crashed child out of the log.
    pub(super) fn drain(&mut self, sink: &mut dyn OutputSink) {
        for _ in 0..DRAIN_PASSES {
            let mut has_read = false;
            for stream in &mut self.streams {
                has_read |= relay_stream(stream, &mut self.buffer, sink);
            }
            if !has_read {
                return;
            }
        }
    }

    /// Returns the streams that can still deliver output.
    pub(super) fn open_streams(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.streams.iter().filter(|stream| stream.is_open).map(Stream::fd)
    }

    /// Returns the controlling side of the child's terminal; `None` if it has pipes, or has closed its terminal.
    pub(super) fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.streams.iter().find(|stream| stream.is_terminal && stream.is_open).map(Stream::fd)
    }

    /// Returns whether input waits for the child's terminal to accept it.
    pub(super) fn has_pending_input(&self) -> bool {
        !self.pending_input.is_empty()
    }

    /// Queues input. A command that has exited gets none.
    pub(super) fn queue_input(&mut self, bytes: Vec<u8>) {
        if self.is_running() {
            self.pending_input = bytes;
        }
    }

    /// Queues responses to queries that the child has sent to its terminal, after input that waits.
    pub(super) fn queue_responses(&mut self, responses: &[u8]) {
        self.pending_input.extend_from_slice(responses);
    }

    /// Returns whether the child's terminal passes bytes on without an echo and without waiting for a line end.
    pub(super) fn reads_responses(&self) -> bool {
        self.terminal().is_some_and(terminal::is_unbuffered)
    }

    /// Queues the terminal's end-of-file character. At the start of a line it means end of file; after part of a
    /// line it only submits that part.
    pub(super) fn queue_end_of_input(&mut self) {
        self.pending_input = vec![self.terminal().map_or(DEFAULT_END_OF_FILE, terminal::end_of_file_character)];
    }

    /// Writes queued input, as much as the terminal accepts now. Without a terminal, input is discarded.
    pub(super) fn write_input(&mut self) {
        if self.pending_input.is_empty() {
            return;
        }
        let Some(terminal) = self.terminal() else {
            self.pending_input.clear();
            return;
        };
        match nix::unistd::write(terminal, &self.pending_input) {
            Ok(count) => drop(self.pending_input.drain(..count)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.pending_input.clear(),
        }
    }
}

/// Passes on what one stream holds, up to the limit of one read; returns whether it held anything.
fn relay_stream(stream: &mut Stream, buffer: &mut Vec<u8>, sink: &mut dyn OutputSink) -> bool {
    buffer.clear();
    stream.read_available(buffer);
    if buffer.is_empty() {
        return false;
    }
    sink.accept(buffer, stream.is_errors);
    true
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::os::spawn::ChildStreams;
    use crate::supervisor::stream::StreamKind;

    /// A sink of a fixed capacity.
    #[derive(Default)]
    struct Buffer {
        capacity: usize,
        output: Vec<u8>,
        errors: Vec<u8>,
    }

    impl OutputSink for Buffer {
        fn is_full(&self) -> bool {
            self.output.len() + self.errors.len() >= self.capacity
        }

        fn accept(&mut self, bytes: &[u8], is_errors: bool) {
            if is_errors { &mut self.errors } else { &mut self.output }.extend_from_slice(bytes);
        }
    }

    /// A child that stands for this process, with the other ends of its pipes.
    fn child_with_pipes() -> (RunningChild, std::fs::File, std::fs::File) {
        let (ours, childs) = Stream::open(StreamKind::Pipes).unwrap();
        let ChildStreams::Pipes { output, errors } = childs else { unreachable!() };
        (RunningChild::new(ProcessIdentity::current().unwrap(), ours), output.into(), errors.into())
    }

    #[test]
    fn a_full_sink_delays_output_but_does_not_stop_a_drain() {
        let (mut child, mut output, mut errors) = child_with_pipes();
        output.write_all(b"a line\n").unwrap();
        errors.write_all(b"out of memory\n").unwrap();
        let mut sink = Buffer::default();
        child.relay(&mut sink);
        assert!(sink.output.is_empty() && sink.errors.is_empty());
        child.drain(&mut sink);
        assert_eq!((&sink.output[..], &sink.errors[..]), (&b"a line\n"[..], &b"out of memory\n"[..]));
    }

    #[test]
    fn streams_stay_readable_after_the_command_has_exited() {
        let (mut child, mut output, _errors) = child_with_pipes();
        let exit = child.end(ExitHow::Code(1));
        assert_eq!(exit.how, ExitHow::Code(1));
        assert!(!child.is_running());
        output.write_all(b"from a descendant\n").unwrap();
        let mut sink = Buffer { capacity: 1000, ..Buffer::default() };
        child.relay(&mut sink);
        assert_eq!(sink.output, b"from a descendant\n");
        drop(output);
        child.relay(&mut sink);
        assert_eq!(child.open_streams().count(), 1, "only standard error is left");
    }

    #[test]
    fn only_a_successor_that_is_not_our_child_needs_polling() {
        let (mut child, _output, _errors) = child_with_pipes();
        let successor = ProcessIdentity { pid: 7, ..child.identity.clone() };
        assert!(!child.needs_polling());
        child.hand_over(successor.clone(), true);
        assert!(!child.needs_polling() && child.is_running() && child.identity == successor);
        child.hand_over(successor, false);
        assert!(child.needs_polling());
        child.end(ExitHow::Unknown);
        assert!(!child.needs_polling());
    }

    #[test]
    fn input_is_discarded_if_the_child_has_no_terminal_or_has_exited() {
        let (mut child, _output, _errors) = child_with_pipes();
        child.queue_input(b"x".to_vec());
        assert!(child.has_pending_input());
        child.write_input();
        assert!(!child.has_pending_input());
        child.end(ExitHow::Code(0));
        child.queue_input(b"x".to_vec());
        assert!(!child.has_pending_input());
    }
}
