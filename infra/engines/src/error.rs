//! Why engines could not be started, found or stopped, each with the remedy.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why engines could not be started, found or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Java is missing.
    #[error(
        "the engines need Java 17, and there is no `{}`: install a JDK \
         (Debian: apt-get install openjdk-17-jdk-headless) or set JAVA_HOME to one",
        java.display()
    )]
    NoJava {
        /// The program that was looked for.
        java: PathBuf,
    },
    /// The Java version cannot run the engines.
    #[error(
        "the engines need Java 17 to 23 (Cassandra does not run on later versions), and `{}` is {found}: \
         install a JDK (Debian: apt-get install openjdk-17-jdk-headless) and set JAVA_HOME to it",
        java.display()
    )]
    WrongJava {
        /// The Java program.
        java: PathBuf,
        /// Its version.
        found: String,
    },
    /// Maven is missing.
    #[error(
        "fetching {what} needs Maven, and there is no `mvn`: install it (Debian: apt-get install \
         maven); it is needed only until the engines have been fetched"
    )]
    NoMaven {
        /// The engine to fetch.
        what: &'static str,
    },
    /// Maven could not fetch the engine.
    #[error("Maven could not fetch {what}; its output:\n{output}")]
    Fetch {
        /// The engine to fetch.
        what: &'static str,
        /// The end of Maven's output.
        output: String,
    },
    /// A system program is missing.
    #[error("the engines need the program `{program}`: install it (Debian: {package})")]
    NoProgram {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The number of brokers is not 1 or 3.
    #[error("a set has 1 or 3 brokers, not {0}")]
    Brokers(u8),
    /// Engines run in the directory already.
    #[error(
        "engines run in {} already: use those, or stop them with `engines down --dir {0}`",
        dir.display()
    )]
    InUse {
        /// The directory of the set.
        dir: PathBuf,
    },
    /// The directory has the data of another kind of set.
    #[error(
        "{} has a set of another kind ({found}, not {requested}): start that kind, use another \
         directory, or remove this one",
        dir.display()
    )]
    OtherKind {
        /// The directory of the set.
        dir: PathBuf,
        /// The parts of the existing set.
        found: String,
        /// The parts of the requested set.
        requested: String,
    },
    /// No set runs in the directory.
    #[error("there are no engines in {}: start them with `engines up --dir {0}`", dir.display())]
    NoSet {
        /// The directory.
        dir: PathBuf,
    },
    /// The set has no broker with this number.
    #[error("the set has no broker {number}: it has 1 to {brokers}")]
    NoBroker {
        /// The requested number.
        number: u8,
        /// The number of brokers.
        brokers: usize,
    },
    /// The set has no part with this name.
    #[error("the set has no part `{name}`: it has {}", parts.join(", "))]
    NoPart {
        /// The requested name.
        name: String,
        /// The parts of the set.
        parts: Vec<String>,
    },
    /// A process ended before it answered.
    #[error("{name} ended before it answered; the end of {}:\n{tail}", log.display())]
    Ended {
        /// The part of the set.
        name: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// A process runs but did not answer in time.
    #[error(
        "{name} did not answer within {} s ({last}); the end of {}:\n{tail}",
        limit.as_secs(), log.display()
    )]
    Silent {
        /// The part of the set.
        name: String,
        /// How long the caller waited.
        limit: Duration,
        /// The error of the last try to reach it.
        last: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// A tool that prepares an engine failed.
    #[error("{what} failed; its output:\n{output}")]
    Tool {
        /// The tool's task.
        what: String,
        /// The tool's output.
        output: String,
    },
    /// A process still runs after SIGKILL.
    #[error("the processes of {} do not end: {pids:?}", dir.display())]
    Unkillable {
        /// The directory of the set or part.
        dir: PathBuf,
        /// The processes.
        pids: Vec<i32>,
    },
    /// A system call failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// The operation, with its path.
        what: String,
        /// The error of the system call.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: the operation and its path.
    pub(crate) fn io(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{verb} {}", path.display());
        move |source| Self::Io { what, source }
    }
}
