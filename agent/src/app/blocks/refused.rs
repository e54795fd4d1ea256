//! Why drop decisions stay as they were.

use crate::config;
use crate::kernel::gate::GateError;
use crate::policy::check::CheckError;
use crate::policy::machine::MachineError;
use crate::policy::rule::Source;
use crate::policy::set::SetError;

use super::log::LogError;

/// Why a change was refused. Nothing of it was taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Not a rule.
    #[error("not a rule: {0}")]
    Written(#[from] serde_path_to_error::Error<serde_json::Error>),
    /// A rule of the configuration.
    #[error("enforce.rules[{0}]: {1}")]
    Config(usize, #[source] CheckError),
    /// The rule.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// All rules together.
    #[error(transparent)]
    Set(#[from] SetError),
    /// All rules together.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The change can't be recorded.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Whoever made it failed in the middle.
    #[error("whether the change was made is not known: see weir block list")]
    Lost,
    /// Neither word.
    #[error("mode: {0:?} is neither monitor nor enforce")]
    Mode(String),
    /// The kernel half refused it.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// There is nothing in the kernel that could drop.
    #[error("the kernel half is not loaded: nothing can be dropped")]
    NoGate,
    /// The configuration's own.
    #[error("rule {0} is of the configuration: remove it there and run `weir reload`")]
    Configured(String),
    /// It would come again.
    #[error("rule {0} is of {1}: remove it there")]
    Elsewhere(String, Source),
    /// Rules of files.
    #[error(transparent)]
    Files(#[from] config::Problems),
    /// A detector that finds too much.
    #[error("detector {0} has {1} rules already")]
    Detector(String, usize),
}

impl Refused {
    /// The key of the rule that is at fault, as it is written in the rule; `None`: it is no single one.
    pub(in crate::app) fn field(&self) -> Option<String> {
        match self {
            Self::Written(error) => {
                let path = error.path().to_string();
                (path != ".").then_some(path)
            }
            Self::Check(error) => error.key().map(str::to_owned),
            Self::Set(SetError::Exists(_)) => Some("id".to_owned()),
            Self::Set(SetError::Nested(_)) => Some("client.address".to_owned()),
            Self::Mode(_) => Some("mode".to_owned()),
            _ => None,
        }
    }
}
