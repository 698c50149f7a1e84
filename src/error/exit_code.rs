//! The exit code of each error, as the README documents it.

use std::process::ExitCode;

use super::Error;

impl Error {
    /// Returns the exit code of a command that fails with this error.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::ClosedOutput => 0,
            Self::Usage { .. } | Self::InvalidKey { .. } | Self::NotUtf8 { .. } | Self::InvalidSignal { .. } => 2,
            Self::NoStackFile { .. }
            | Self::InvalidPortRange { .. }
            | Self::NoHome
            | Self::MissingHome { .. }
            | Self::InvalidFile { .. }
            | Self::InvalidLines { .. }
            | Self::InvalidDirectory { .. }
            | Self::PortOfCheck { .. } => 3,
            Self::NoSuchService { .. }
            | Self::NeverStarted { .. }
            | Self::NoServicesHere { .. }
            | Self::NoSuchEntry { .. }
            | Self::PrefixTooShort { .. }
            | Self::Ambiguous { .. }
            | Self::UnusedPort { .. } => 4,
            Self::NotInTime { .. } | Self::NotAllInTime { .. } | Self::NotCompleted { .. } | Self::SomeNotUp { .. } => {
                5
            }
            Self::KeyElsewhere { .. } | Self::CheckoutGone { .. } => 6,
            Self::CommandEnded { code, .. } | Self::Interrupted { code, .. } => *code,
            Self::Cancelled => 130,
            Self::Tailnet(error) => error.exit_code(),
            Self::DanglingCheckout { .. }
            | Self::NoMainCheckout { .. }
            | Self::Io { .. }
            | Self::Unwritable { .. }
            | Self::System { .. }
            | Self::HashCollision { .. }
            | Self::PortReserved { .. }
            | Self::PortTaken { .. }
            | Self::PortFixed { .. }
            | Self::PoolExhausted { .. }
            | Self::CorruptRecord { .. }
            | Self::NewerRecord { .. }
            | Self::ForeignDirectory { .. }
            | Self::LockBusy { .. }
            | Self::StartFailed { .. }
            | Self::StillStopping { .. }
            | Self::UnknownSupervisor { .. }
            | Self::UnprovenOrphan { .. }
            | Self::NotRunning { .. }
            | Self::NoProcess { .. }
            | Self::NoPort { .. }
            | Self::NoSuchVariable { .. }
            | Self::NoCommand { .. }
            | Self::NoSuchRun { .. }
            | Self::NoBrowser { .. }
            | Self::CannotAttach { .. }
            | Self::Tmux { .. }
            | Self::TmuxSilent { .. }
            | Self::SomeFailed { .. }
            | Self::SomeUnread { .. }
            | Self::WouldChange => 1,
        })
    }
}
