//! The one thread of a supervisor: waits for signals, output, input and deadlines, asks the lifecycle what
//! they mean, and does it. It never sleeps and never blocks elsewhere.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::config::Variables;
use crate::error::{Error, Result, reason};
use crate::identity::ServiceHash;
use crate::logs::{LogWriter, Mark};
use crate::os::clock::Deadline;
use crate::os::process::{self, ProcessIdentity};
use crate::os::{clock, terminal, trim_heap};
use crate::registry::{
    Acquired, Exit, ExitHow, IdentityLock, Pane, Registry, Reservation, Role, RunState, Scan, State, TreeEnded,
};
use crate::supervisor::child::{self, SpawnError};
use crate::supervisor::lifecycle::{Action, Event, Lifecycle, Outcome, StopCause};
use crate::supervisor::relay::{self, Input, Screen};
use crate::supervisor::service::{Orphans, Service};
use crate::supervisor::signals::{Request, Signals};
use crate::supervisor::stream::{Stream, StreamKind};
use crate::supervisor::watch::ReadinessProbe;

/// How often a supervisor shows that its service is up.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How old `last_up` in the record may be while the service runs.
const RECORDED_WHILE_UP: SignedDuration = SignedDuration::from_hours(24);
/// How old it may be when the service starts or stops: a synced write takes 8 ms on an ordinary disk, twice what `stop`
/// takes without it.
const RECORDED_AT_ENDS: SignedDuration = SignedDuration::from_hours(1);
/// How often a tree that is being ended is looked at, in case no signal tells of its end.
const TREE_CHECK: Duration = Duration::from_millis(50);

/// How often the streams of a child that has ended are read, 64 KiB each time: more than pipes and terminals hold.
const DRAIN_PASSES: usize = 64;
/// How often a state that could not be recorded, as on a full disk, is tried again.
const RECORD_RETRY: Duration = Duration::from_secs(1);

/// A wait that is long enough for a timer to be late by more than a millisecond.
const LONG_WAIT: Duration = Duration::from_millis(500);

/// How and where a supervisor runs.
#[derive(Debug)]
pub(crate) struct SupervisorSetup {
    /// Whether somebody watches our own streams, or the log is the only output.
    pub(crate) watched: bool,
    /// The window that we are in, if devport made it.
    pub(crate) window: Option<Pane>,
    /// The kind of terminal that our streams are, as `TERM` says; `None` if they are none.
    pub(crate) term: Option<String>,
}

/// What came of an attempt to supervise a service.
#[derive(Debug)]
pub(crate) enum Supervised {
    /// It was supervised, and this is how that ended.
    Ended(Outcome),
    /// Another supervisor does that.
    AlreadyRunning,
}

/// Becomes the supervisor of a service, until the service ends.
///
/// # Errors
/// If the service's files cannot be used, or a process of an earlier run cannot be told from a stranger.
pub(crate) fn supervise(registry: &Registry, hash: &ServiceHash, terms: SupervisorSetup) -> Result<Supervised> {
    let signals = Signals::install()?;
    let me = ProcessIdentity::current().map_err(Error::system("identify this process"))?;
    let Some(identity) = acquire(registry, hash)? else { return Ok(Supervised::AlreadyRunning) };
    let Some(reservation) = registry.find(hash)? else {
        // It was removed meanwhile; nothing of it may come back.
        identity.delete()?;
        return Err(Error::NoSuchService { target: hash.to_string(), nearest: Vec::new() });
    };
    registry.sweep_run_states(hash);
    let (before, is_readable) = match registry.run_state(hash) {
        Ok(before) => (before, true),
        Err(Error::CorruptRecord { .. }) => (None, false),
        Err(error) => return Err(error),
    };
    let run = RunState::begin(me, terms.window.clone(), before.clone());
    // A supervisor that cannot record anything must not start anything: nobody would learn of it.
    registry.record_run(&identity, &run)?;
    // Looking at every process of the machine is for those who have a reason to.
    let recorded = if is_readable { TreeEnded::recorded(&identity, before.as_ref()) } else { None };
    match Prepared::read(registry, &reservation, &identity, terms.watched, recorded, before) {
        Ok(prepared) => {
            let supervisor = Supervisor::new(registry, reservation, identity, signals, terms, run, prepared);
            Ok(Supervised::Ended(supervisor.run()))
        }
        Err(error) => {
            // Whoever launched us reads this; the error itself is printed where nobody may look.
            let mut failed = run;
            (failed.state, failed.error) = (State::Failed, Some(error.to_string()));
            let _ = registry.record_run(&identity, &failed);
            Err(error)
        }
    }
}

/// What a supervisor reads before it begins.
struct Prepared {
    /// What the child's environment is made of.
    environment: Variables,
    /// Who watches.
    screen: Screen,
    /// The proof that nothing of the service runs; `None` if something may.
    ended: Option<TreeEnded>,
    /// What an earlier supervisor left; `None` if it left nothing.
    orphans: Option<Orphans>,
}

impl Prepared {
    /// Reads what is needed. Nothing is started yet. `recorded`: the proof that the last supervisor recorded.
    fn read(
        registry: &Registry,
        reservation: &Reservation,
        identity: &IdentityLock,
        is_watched: bool,
        recorded: Option<TreeEnded>,
        before: Option<RunState>,
    ) -> Result<Self> {
        let environment = registry.environment(&reservation.hash)?;
        process::become_subreaper().map_err(Error::system("adopt orphaned descendants"))?;
        let screen = if is_watched {
            Screen::of_own_streams().map_err(Error::system("use the terminal"))?
        } else {
            Screen::none()
        };
        let (ended, orphans) = match recorded {
            Some(ended) => (Some(ended), None),
            None => match registry.scan_orphans(identity, reservation.name(), before.as_ref())? {
                Scan::Ended(ended) => (Some(ended), None),
                Scan::Left(_) => (None, Some(Orphans { before })),
            },
        };
        Ok(Self { environment, screen, ended, orphans })
    }
}

/// How long a command may be alone with the service, beyond the grace period of what it ends, until a supervisor
/// gives up.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// How often the lock is tried while a command holds it.
const COMMAND_INTERVAL: Duration = Duration::from_millis(2);

/// Takes the identity lock; `None` if another supervisor has it. A command that holds it, such as a `stop` that ends
/// what a killed supervisor left, is waited for.
fn acquire(registry: &Registry, hash: &ServiceHash) -> Result<Option<IdentityLock>> {
    let mut deadline: Option<Deadline> = None;
    let busy = |holder: String, waited: Duration| Error::LockBusy {
        what: "the service's lock".into(),
        holder,
        waited_s: waited.as_secs(),
    };
    loop {
        match registry.acquire_identity(hash, Role::Supervisor)? {
            Acquired::Lock(identity) => return Ok(Some(identity)),
            Acquired::Held(Some(holder)) if holder.role == Role::Command => {
                let deadline = match deadline {
                    Some(deadline) => deadline,
                    None => {
                        // A service that was removed has none.
                        let grace = registry.find(hash)?.map_or(Duration::ZERO, |found| found.policy.grace.0);
                        *deadline.insert(Deadline::after(command_limit(grace)))
                    }
                };
                if deadline.remaining().is_zero() {
                    return Err(busy(holder.process().to_string(), deadline.limit));
                }
                clock::pause(COMMAND_INTERVAL);
            }
            Acquired::Held(Some(_)) => return Ok(None),
            // A stranger's lock: the command that launched us saw no supervisor.
            Acquired::Held(None) => return Err(busy("a process that it does not name".into(), Duration::ZERO)),
        }
    }
}

/// How long a supervisor waits for a command that ends a service with this grace period.
fn command_limit(grace: Duration) -> Duration {
    grace.saturating_add(COMMAND_LIMIT)
}

/// A supervisor at work.
struct Supervisor<'a> {
    /// The service, and what runs of it.
    service: Service<'a>,
    /// The proof that nothing of the service runs; `None` while something may.
    ended: Option<TreeEnded>,
    /// Whether the last state could not be recorded; it is tried again.
    is_unrecorded: bool,
    /// Whether some processes could not be asked to end; they are asked again.
    is_unasked: bool,
    /// The last failure that was told while it was tried again; `None` if there was none.
    complaint: Option<String>,
    /// How and where it runs.
    terms: SupervisorSetup,
    /// What we get told.
    signals: Signals,
    /// What we decide.
    lifecycle: Lifecycle,
    /// What finds out whether the child is ready and well.
    watch: ReadinessProbe,
    /// Processes that have ended and are not the child: somebody may have waited for one.
    ended_others: Vec<(i32, ExitHow)>,
    /// What we record.
    run: RunState,
    /// When the child was started; `None` once it has ended.
    child_since: Option<Instant>,
    /// Our ends of the child's streams.
    streams: Vec<Stream>,
    /// Bytes on their way to the child.
    to_child: Vec<u8>,
    /// Whether there will be no more input.
    has_input_ended: bool,
    /// Who watches.
    screen: Screen,
    /// The captured output.
    log: LogWriter,
    /// When the next heartbeat is.
    heartbeat_at: Instant,
    /// When the last one was.
    last_beat: Timestamp,
    /// Output on its way; kept to be used again.
    buffer: Vec<u8>,
}

impl<'a> Supervisor<'a> {
    /// A supervisor of which nothing runs yet.
    fn new(
        registry: &'a Registry,
        reservation: Reservation,
        identity: IdentityLock,
        signals: Signals,
        terms: SupervisorSetup,
        run: RunState,
        prepared: Prepared,
    ) -> Self {
        let Prepared { environment, screen, ended, orphans } = prepared;
        let log = LogWriter::new(registry.paths().log(&reservation.hash), &reservation.policy, run.runs);
        let seed = run.supervisor.start_time.unwrap_or_default() ^ (u64::from(run.supervisor.pid.unsigned_abs()) << 32);
        let lifecycle = Lifecycle::new(reservation.policy.clone(), seed);
        let watch = ReadinessProbe::new(&reservation);
        // Spread, so that services which were started together do not contend for the lock at every heartbeat.
        let first_heartbeat = HEARTBEAT.mul_f64(1.0 - f64::from(run.supervisor.pid % 64) / 128.0);
        let supervisor = run.supervisor.pid;
        Self {
            service: Service { registry, identity, supervisor, reservation, environment, child: None, orphans },
            ended,
            is_unrecorded: false,
            is_unasked: false,
            complaint: None,
            terms,
            signals,
            lifecycle,
            watch,
            ended_others: Vec::new(),
            run,
            child_since: None,
            streams: Vec::new(),
            to_child: Vec::new(),
            has_input_ended: false,
            screen,
            log,
            last_beat: clock::wall(),
            heartbeat_at: clock::later(clock::now(), first_heartbeat),
            buffer: Vec::new(),
        }
    }

    /// Runs the service to its end.
    fn run(mut self) -> Outcome {
        let begin = Event::Begin { orphans: self.service.orphans.is_some() };
        self.beat();
        let mut outcome = self.feed(begin);
        // After the first answer: a synced write takes milliseconds.
        self.record_last_up(RECORDED_AT_ENDS);
        trim_heap();
        while outcome.is_none() {
            outcome = self.turn();
        }
        self.beat();
        self.record_last_up(RECORDED_AT_ENDS);
        self.screen.drain(clock::now());
        outcome.unwrap_or(Outcome::Stopped)
    }

    /// One turn of the loop; an outcome ends it.
    fn turn(&mut self) -> Option<Outcome> {
        self.wait();
        let mut events = VecDeque::new();
        for request in self.signals.pending() {
            events.extend(self.handle(request));
        }
        if self.screen.is_gone() {
            self.screen.close();
            events.push_back(Event::Stop(StopCause::HangUp));
        }
        self.relay_input();
        self.relay_output();
        while let Some(event) = events.pop_front() {
            if let Some(outcome) = self.feed(event) {
                return Some(outcome);
            }
        }
        // Behind what was asked for: no check may delay a stop.
        let ended = std::mem::take(&mut self.ended_others);
        for event in self.watch.turn(&self.service, &ended, clock::now()) {
            if let Some(outcome) = self.feed(event) {
                return Some(outcome);
            }
        }
        if let Some(outcome) = self.clear() {
            return Some(outcome);
        }
        if self.is_unrecorded {
            self.write_run();
        }
        let now = clock::now();
        self.screen.drain(now);
        if now >= self.heartbeat_at {
            self.beat();
            self.record_last_up(RECORDED_WHILE_UP);
        }
        self.feed(Event::Tick)
    }

    /// Goes on with ending the tree, if that is under way; tells the lifecycle when no process is left.
    fn clear(&mut self) -> Option<Outcome> {
        if !self.lifecycle.is_clearing() {
            return None;
        }
        if self.is_unasked {
            self.terminate();
        }
        // A child that has ended and is not reaped yet is no member any more; its end must not go unrecorded.
        if self.child_since.is_some() {
            return None;
        }
        match self.service.scan() {
            Ok(Scan::Ended(ended)) => {
                self.drain_output();
                self.streams.clear();
                self.ended = Some(ended);
                self.service.child = None;
                self.service.orphans = None;
                self.run.child = None;
                self.feed(Event::TreeGone)
            }
            Ok(Scan::Left(_)) => None,
            // Not "nothing is left": the next turn asks again.
            Err(error) => {
                self.complain(&error);
                None
            }
        }
    }

    /// Asks every process of the tree to end.
    fn terminate(&mut self) {
        let signal = self.service.reservation.policy.stop_signal.0;
        let asked = self.service.terminate(signal, self.child_since.is_some());
        self.is_unasked = asked.is_err();
        if let Err(error) = asked {
            self.complain(&error);
        }
    }

    /// Tells of a failure that is tried again, each time that it is another one.
    fn complain(&mut self, error: &Error) {
        let text = format!("{error}; trying again");
        if self.complaint.as_ref() != Some(&text) {
            self.note(&text);
            self.complaint = Some(text);
        }
    }

    /// Shows that the service is up. A heartbeat that fails is only late.
    fn beat(&mut self) {
        self.heartbeat_at = clock::now() + HEARTBEAT;
        self.last_beat = clock::wall();
        let _ = self.service.identity.beat(self.last_beat);
    }

    /// Writes the last heartbeat into the record if that is older, so that the first devport, and a state directory
    /// that was copied, know it too. It is only advice: a failure is tried again a day later.
    fn record_last_up(&mut self, age: SignedDuration) {
        let record = &mut self.service.reservation;
        if self.last_beat.duration_since(record.last_up) < age {
            return;
        }
        if let Ok(true) = self.service.registry.record_last_up(&record.hash, self.last_beat) {
            record.last_up = self.last_beat;
        }
    }

    /// Waits until there is something to do.
    fn wait(&self) {
        let now = clock::now();
        let tree_check = self.lifecycle.is_clearing().then(|| now + TREE_CHECK);
        let record_retry = self.is_unrecorded.then(|| now + RECORD_RETRY);
        let deadlines = [
            Some(self.heartbeat_at),
            self.lifecycle.deadline(),
            self.watch.deadline(),
            self.screen.deadline(),
            tree_check,
            record_retry,
        ];
        let next = deadlines.into_iter().flatten().min().unwrap_or(self.heartbeat_at);
        let wait = next.saturating_duration_since(now);
        let wait = if self.lifecycle.deadline() == Some(next) && wait > LONG_WAIT {
            // Linux may be late by a thousandth of the timeout: a start after 30 s is waited for in two parts.
            wait.mul_f64(0.995)
        } else {
            // Rounded up, or the loop would turn without anything being due.
            wait + Duration::from_micros(999)
        };
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if !self.screen.holds_back() {
            fds.extend(
                self.streams
                    .iter()
                    .filter(|stream| stream.open)
                    .map(|stream| PollFd::new(stream.fd(), PollFlags::POLLIN)),
            );
        }
        if self.to_child.is_empty() {
            fds.extend(self.screen.input_fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        } else {
            fds.extend(self.terminal_stream().map(|fd| PollFd::new(fd, PollFlags::POLLOUT)));
        }
        fds.extend(self.watch.waits_for().map(|(fd, flags)| PollFd::new(fd, flags)));
        fds.extend(self.screen.watched_fd().map(|fd| PollFd::new(fd, PollFlags::POLLHUP)));
        fds.extend(self.screen.blocked_fds().map(|fd| PollFd::new(fd, PollFlags::POLLOUT)));
        // An interruption is a signal, which the pipe tells of too.
        let _ = poll(&mut fds, timeout);
    }

    /// The child's terminal, if it has one that is open.
    fn terminal_stream(&self) -> Option<BorrowedFd<'_>> {
        self.streams.iter().find(|stream| stream.is_terminal && stream.open).map(|stream| stream.fd())
    }

    /// Takes in what a signal asks for.
    fn handle(&mut self, request: Request) -> Vec<Event> {
        match request {
            Request::Reap => self.reap(),
            Request::Stop => vec![Event::Stop(StopCause::Signal)],
            Request::StopCommand => vec![Event::Stop(StopCause::Request)],
            // The hang-up of a terminal that is gone is seen by looking at it.
            Request::HangUp if self.screen.is_gone() => Vec::new(),
            Request::HangUp | Request::Restart => vec![Event::Restart],
            Request::Resize => {
                if let (Some(size), Some(terminal)) = (self.screen.size(), self.terminal_stream()) {
                    let _ = size.apply(terminal);
                }
                Vec::new()
            }
            Request::Forward(signal) => {
                if let (Some(child), Some(_)) = (&self.service.child, self.child_since) {
                    let _ = child.signal_group(signal);
                }
                Vec::new()
            }
        }
    }

    /// Reaps every child that has ended: our own, and orphans that we were given.
    fn reap(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some((pid, status)) = process::reap() {
            let how = status.signal().map_or_else(|| ExitHow::Code(status.code().unwrap_or(0)), ExitHow::Signal);
            if self.service.child.as_ref().is_some_and(|child| child.pid == pid) && self.child_since.is_some() {
                self.child_ended(how);
                events.push(Event::Exited(how));
            } else {
                self.ended_others.push((pid, how));
            }
        }
        events
    }

    /// Takes note of the child's end, behind the last of its output.
    fn child_ended(&mut self, how: ExitHow) {
        self.drain_output();
        self.watch.end();
        let now = clock::now();
        let ran = self.child_since.take().map(|since| now.saturating_duration_since(since)).unwrap_or_default();
        let text = ended_text(how, ran);
        let at = clock::wall();
        self.log.mark(&Mark::Ended(text.clone()), at);
        self.screen.say(&text, now);
        self.run.add_exit(Exit { at, how, ran_ms: u64::try_from(ran.as_millis()).unwrap_or(u64::MAX) });
        self.run.child = None;
        self.run.started_at = None;
        self.to_child.clear();
    }

    /// Has the lifecycle decide, and does what it says; an outcome is the end.
    fn feed(&mut self, event: Event) -> Option<Outcome> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.lifecycle.step(event, clock::now()) {
                match action {
                    Action::Spawn => events.push_back(self.spawn()),
                    Action::Terminate => {
                        self.watch.end();
                        self.terminate();
                    }
                    Action::Kill => {
                        if let Err(error) = self.service.kill(self.child_since.is_some()) {
                            self.complain(&error);
                        }
                    }
                    Action::Record(state, error) => self.record(state, error),
                    Action::Quit(outcome) => return Some(outcome),
                }
            }
        }
        None
    }

    /// Checks the port and starts the child.
    fn spawn(&mut self) -> Event {
        if let Some(port) = self.service.reservation.service_port() {
            match child::port_owner(port, self.service.registry, &self.service.reservation) {
                Ok(None) => {}
                Ok(Some(owner)) => {
                    let why = format!("port {port} is taken by {owner}");
                    self.note(&format!("{why}; it is looked at again every 5 s"));
                    return Event::PortTaken(why);
                }
                Err(error) => {
                    let why = format!("could not look at port {port}: {}", reason(&error));
                    return Event::SpawnFailed { why, lasting: false };
                }
            }
        }
        let Some(ended) = self.proof() else {
            let why = "could not prove that no process of the last run is left".into();
            return Event::SpawnFailed { why, lasting: false };
        };
        let kind = self.screen.child_terminal().map_or(StreamKind::Pipes, StreamKind::Terminal);
        match self.service.spawn(ended, self.terms.term.as_deref(), kind) {
            Ok((child, streams)) => {
                let at = clock::wall();
                self.run.runs += 1;
                self.log.mark(&Mark::Started { pid: child.pid, run: self.run.runs }, at);
                self.run.started_at = Some(at);
                self.run.child = Some(child.clone());
                self.service.child = Some(child);
                let now = clock::now();
                self.child_since = Some(now);
                self.watch.begin(now);
                self.streams = streams;
                if self.has_input_ended {
                    // Each child is told: the one before took the character with it.
                    self.to_child = vec![self.terminal_stream().map_or(4, terminal::end_of_file_character)];
                }
                Event::Spawned
            }
            Err(SpawnError { why, lasting }) => Event::SpawnFailed { why, lasting },
        }
    }

    /// The proof that nothing of the service runs, by a new scan if there is none; `None` if something does, or may.
    fn proof(&mut self) -> Option<TreeEnded> {
        self.ended.take().or_else(|| match self.service.scan() {
            Ok(Scan::Ended(ended)) => Some(ended),
            Ok(Scan::Left(_)) => None,
            Err(error) => {
                self.complain(&error);
                None
            }
        })
    }

    /// Tells whoever watches, and the log.
    fn note(&mut self, text: &str) {
        self.log.mark(&Mark::Note(text.to_owned()), clock::wall());
        self.screen.say(text, clock::now());
    }

    /// Writes down the state.
    fn record(&mut self, state: State, error: Option<String>) {
        let now = clock::now();
        let wait = self.lifecycle.next_start().map(|at| at.saturating_duration_since(now));
        let crashed = matches!(state, State::Backoff | State::CrashLoop);
        if let (true, Some(wait)) = (crashed, wait) {
            self.screen.say(&format!("starting again in {:.0} s", wait.as_secs_f64()), now);
        }
        // A taken port was told when it was found.
        if let Some(error) = error.as_ref().filter(|_| state != State::PortConflict) {
            self.note(error);
        }
        let last = self
            .run
            .exits
            .last()
            .filter(|_| crashed)
            .map(|exit| ended_text(exit.how, Duration::from_millis(exit.ran_ms)));
        self.run.listens = self.watch.listens().to_vec();
        self.run.state = state;
        self.run.error = error.or(last);
        self.run.restarts = self.lifecycle.restarts();
        self.run.next_start_at = wait.and_then(|wait| clock::wall().checked_add(wait).ok());
        self.write_run();
    }

    /// Records the state. The service goes on if that fails, and it is tried again.
    fn write_run(&mut self) {
        let registry = self.service.registry;
        let proof = if self.run.says_ended() { self.proof() } else { None };
        let written = match &proof {
            Some(ended) => registry.record_end(&self.service.identity, &self.run, ended),
            None => registry.record_run(&self.service.identity, &self.run),
        };
        self.ended = proof.or(self.ended.take());
        self.is_unrecorded = written.is_err();
        if let Err(error) = written {
            self.complain(&error);
        }
    }

    /// Passes output on to the log, the screen and whoever waits for a line of it.
    fn relay_output(&mut self) {
        for index in 0..self.streams.len() {
            if self.screen.holds_back() {
                return;
            }
            self.relay_stream(index);
        }
    }

    /// Passes on what a child that has ended wrote before: whoever watches cannot hold that back from the log. What its
    /// descendants go on writing is read later.
    fn drain_output(&mut self) {
        for _ in 0..DRAIN_PASSES {
            let mut is_empty = true;
            for index in 0..self.streams.len() {
                self.relay_stream(index);
                is_empty &= self.buffer.is_empty();
            }
            if is_empty {
                return;
            }
        }
    }

    /// Passes on what one stream holds, up to a limit; the buffer is empty if it held nothing.
    fn relay_stream(&mut self, index: usize) {
        self.buffer.clear();
        let stream = &mut self.streams[index];
        stream.read_available(&mut self.buffer);
        if self.buffer.is_empty() {
            return;
        }
        let now = clock::now();
        self.log.append(&self.buffer, clock::wall());
        if stream.is_errors {
            self.screen.show_error(&self.buffer, now);
        } else {
            self.screen.show(&self.buffer, now);
        }
        self.watch.output(&self.buffer);
    }

    /// Passes input on to the child.
    fn relay_input(&mut self) {
        if self.to_child.is_empty() && self.screen.input_fd().is_some_and(relay::is_readable) {
            match self.screen.read() {
                Input::Bytes(bytes) if self.child_since.is_some() => self.to_child = bytes,
                Input::End => {
                    self.has_input_ended = true;
                    // Behind a line's end the character means end of file; behind half a line it only sends it.
                    let end = self.terminal_stream().map_or(4, terminal::end_of_file_character);
                    self.to_child = vec![end];
                }
                Input::Bytes(_) | Input::Nothing => {}
            }
        }
        if self.to_child.is_empty() {
            return;
        }
        let Some(terminal) = self.terminal_stream() else {
            self.to_child.clear();
            return;
        };
        match nix::unistd::write(terminal, &self.to_child) {
            Ok(count) => drop(self.to_child.drain(..count)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => self.to_child.clear(),
        }
    }
}

/// How a child ended, for people: `exit code 1 after 0.2 s`, `killed by SIGTERM after 3.0 s`.
fn ended_text(how: ExitHow, ran: Duration) -> String {
    let ran = ran.as_secs_f64();
    match how {
        ExitHow::Code(code) => format!("exit code {code} after {ran:.1} s"),
        ExitHow::Signal(signal) => {
            format!("killed by {} after {ran:.1} s", crate::os::signal::name(signal))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_take_the_grace_period_of_what_it_ends() {
        let grace = Duration::from_secs(3600);
        assert!(command_limit(grace) > grace);
    }
}
