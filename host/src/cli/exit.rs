//! Exit codes: stable, public, and the same for every command.

use std::process::ExitCode;

/// How the process ends. `docs/user-guide.md` has the same table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// All that was asked for was done.
    Success = 0,
    /// Something else went wrong: discovery, a file, a permission.
    Failure = 1,
    /// An image was not built or not pushed, or the command line cannot be parsed.
    Build = 2,
    /// A model failed, or never started.
    Run = 3,
    /// An option or the additional context has a value that cannot be.
    Arguments = 4,
    /// Policy refused something that was needed.
    Refused = 5,
    /// A check that was asked for found a regression.
    Regression = 6,
    /// A replay is not as it was recorded.
    Diverged = 7,
    /// Ctrl-C, or a termination signal.
    Interrupted = 130,
}

impl Exit {
    /// The code of another process of this program.
    #[must_use]
    pub fn of_code(code: u8) -> Self {
        let all = [
            Self::Success,
            Self::Failure,
            Self::Build,
            Self::Run,
            Self::Arguments,
            Self::Refused,
            Self::Regression,
            Self::Diverged,
            Self::Interrupted,
        ];
        all.into_iter().find(|exit| *exit as u8 == code).unwrap_or(Self::Failure)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
