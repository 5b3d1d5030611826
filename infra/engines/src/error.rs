//! Why engines could not be started, found or stopped, each with what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why engines could not be started, found or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no Java to run them with.
    #[error(
        "the engines need Java 17, and there is no `{}`: install a JDK \
         (Debian: apt-get install openjdk-17-jdk-headless) or set JAVA_HOME to one",
        java.display()
    )]
    NoJava {
        /// What was looked for.
        java: PathBuf,
    },
    /// There is a Java that cannot run them.
    #[error(
        "the engines need Java 17 to 23 (Cassandra runs on no later one), and `{}` is {found}: \
         install a JDK (Debian: apt-get install openjdk-17-jdk-headless) and set JAVA_HOME to it",
        java.display()
    )]
    WrongJava {
        /// The program that was asked.
        java: PathBuf,
        /// What it said of its version.
        found: String,
    },
    /// There is no Maven to fetch them with.
    #[error(
        "fetching {what} needs Maven, and there is no `mvn`: install it (Debian: apt-get install \
         maven); it is needed only until the engines have been fetched"
    )]
    NoMaven {
        /// What was to be fetched.
        what: &'static str,
    },
    /// Maven could not fetch them.
    #[error("Maven could not fetch {what}; it said:\n{output}")]
    Fetch {
        /// What was to be fetched.
        what: &'static str,
        /// The end of what Maven said.
        output: String,
    },
    /// A program that the system usually has is missing.
    #[error("the engines need the program `{program}`: install it (Debian: {package})")]
    NoProgram {
        /// The program.
        program: &'static str,
        /// The package it is in.
        package: &'static str,
    },
    /// A cluster has one or three brokers here.
    #[error("a set has 1 or 3 brokers, not {0}")]
    Brokers(u8),
    /// Other engines run in the directory.
    #[error(
        "engines run in {} already: use those, or stop them with `engines down --dir {0}`",
        dir.display()
    )]
    InUse {
        /// The directory of the set.
        dir: PathBuf,
    },
    /// The directory holds the data of a set of another kind.
    #[error(
        "{} holds a set of another kind ({found}, not {wanted}): start that kind, use another \
         directory, or remove this one",
        dir.display()
    )]
    OtherKind {
        /// The directory of the set.
        dir: PathBuf,
        /// What it is a set of.
        found: String,
        /// What it should be a set of.
        wanted: String,
    },
    /// No set was ever started in the directory.
    #[error("there are no engines in {}: start them with `engines up --dir {0}`", dir.display())]
    NoSet {
        /// The directory.
        dir: PathBuf,
    },
    /// The set has no broker of that number.
    #[error("the set has no broker {number}: it has 1 to {brokers}")]
    NoBroker {
        /// The number asked for.
        number: u8,
        /// How many there are.
        brokers: usize,
    },
    /// A process ended while it was waited for.
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
        /// How long it was waited for.
        limit: Duration,
        /// What the last try to reach it gave.
        last: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// A tool that prepares an engine failed.
    #[error("{what} failed; it said:\n{output}")]
    Tool {
        /// What it was to do.
        what: String,
        /// What it said.
        output: String,
    },
    /// A process is still there after a SIGKILL.
    #[error("the processes of {} do not end: {pids:?}", dir.display())]
    Unkillable {
        /// The directory of the set or part.
        dir: PathBuf,
        /// The processes.
        pids: Vec<i32>,
    },
    /// The operating system refused something.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// Why it was refused.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: what was tried, on which path.
    pub(crate) fn io(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{verb} {}", path.display());
        move |source| Self::Io { what, source }
    }
}
