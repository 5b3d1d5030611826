//! The engines' programs: jars from Maven Central, fetched once and shared by all sets, and the Java that
//! runs them.

use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use runtime::output::error_line;

use crate::{Error, Options};

/// The installed programs of a set.
pub(crate) struct Installed {
    pub java: PathBuf,
    /// The directories of the jars.
    pub kafka: PathBuf,
    pub cassandra: Option<PathBuf>,
    pub registry: Option<PathBuf>,
}

/// Finds the programs of a set, and fetches missing ones.
pub(crate) fn install(options: &Options) -> Result<Installed, Error> {
    let jars = |wanted: bool, package: &Package| wanted.then(|| package.jars()).transpose();
    Ok(Installed {
        java: java()?,
        kafka: KAFKA.jars()?,
        cassandra: jars(options.cassandra, &CASSANDRA)?,
        registry: jars(options.registry, &REGISTRY)?,
    })
}

/// An engine's package at Maven Central.
struct Package {
    /// Its name and version in messages.
    what: &'static str,
    /// The name of its directory in the cache.
    name: &'static str,
    pom: &'static str,
    goal: &'static str,
    megabytes: u32,
}

const KAFKA: Package = Package {
    what: "Apache Kafka 4.2.1",
    name: "kafka-4.2.1",
    pom: include_str!("../maven/kafka.pom.xml"),
    goal: "copy-dependencies",
    megabytes: 54,
};
const CASSANDRA: Package = Package {
    what: "Apache Cassandra 5.0.5",
    name: "cassandra-5.0.5",
    pom: include_str!("../maven/cassandra.pom.xml"),
    goal: "copy-dependencies",
    megabytes: 66,
};
const REGISTRY: Package = Package {
    what: "Apicurio Registry 2.6.13",
    name: "apicurio-2.6.13",
    pom: include_str!("../maven/registry.pom.xml"),
    goal: "unpack-dependencies",
    megabytes: 142,
};

/// Maven's plugin, with its version: without one, the version would depend on Maven's.
const PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";
/// The longest time of a fetch.
const FETCH_LIMIT: Duration = Duration::from_secs(30 * 60);

impl Package {
    /// The directory of the package's jars; fetches them if they are missing.
    fn jars(&self) -> Result<PathBuf, Error> {
        let cache = cache_directory();
        fs::create_dir_all(&cache).map_err(Error::io("create", &cache))?;
        // A second process waits here, and then finds the jars that the first one fetched.
        let lock_path = cache.join("lock");
        let lock = File::create(&lock_path).map_err(Error::io("create", &lock_path))?;
        lock.lock().map_err(Error::io("lock", &lock_path))?;
        let jars = cache.join(self.name);
        // The pom in the directory is the one that the jars were fetched with.
        if fs::read_to_string(jars.join("pom.xml")).is_ok_and(|pom| pom == self.pom) {
            return Ok(jars);
        }
        let fetched = tempfile::tempdir_in(&cache).map_err(Error::io("write to", &cache))?;
        self.fetch(fetched.path())?;
        if jars.exists() {
            fs::remove_dir_all(&jars).map_err(Error::io("remove", &jars))?;
        }
        fs::rename(fetched.keep(), &jars).map_err(Error::io("create", &jars))?;
        Ok(jars)
    }

    fn fetch(&self, into: &Path) -> Result<(), Error> {
        let pom = into.join("pom.xml");
        fs::write(&pom, self.pom).map_err(Error::io("write", &pom))?;
        let output_path = into.join("maven.log");
        let output = File::create(&output_path).map_err(Error::io("create", &output_path))?;
        let stderr = output
            .try_clone()
            .map_err(Error::io("write", &output_path))?;
        let message = format!(
            "Fetching {} from Maven Central, once ({} MB)",
            self.what, self.megabytes
        );
        let started = Command::new("mvn")
            .args(["-B", "-q", "-f"])
            .arg(&pom)
            .arg(format!("{PLUGIN}:{}", self.goal))
            .arg("-DincludeScope=runtime")
            .arg(format!("-DoutputDirectory={}", into.display()))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(stderr)
            .spawn();
        let mut maven = started.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::NoMaven { what: self.what },
            _ => Error::Io {
                what: "run mvn".into(),
                source,
            },
        })?;
        let progress = progress(message);
        let deadline = Instant::now() + FETCH_LIMIT;
        let status = loop {
            if let Some(status) = maven.try_wait().map_err(Error::io("wait for", &pom))? {
                break Some(status);
            }
            if Instant::now() > deadline {
                // It may have ended by itself just now.
                let _ = maven.kill();
                let _ = maven.wait();
                break None;
            }
            thread::sleep(Duration::from_millis(100));
        };
        progress.finish_and_clear();
        if status.is_some_and(|status| status.success()) {
            return Ok(());
        }
        let text = fs::read_to_string(&output_path).unwrap_or_default();
        let output = match status {
            Some(_) => last_lines(&text, 25),
            None => format!("it did not finish within {} s", FETCH_LIMIT.as_secs()),
        };
        Err(Error::Fetch {
            what: self.what,
            output,
        })
    }
}

/// A spinner on a terminal, else one line of text.
fn progress(message: String) -> ProgressBar {
    if !io::stderr().is_terminal() {
        error_line(&message);
    }
    let bar = ProgressBar::new_spinner().with_message(message);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// The last lines of a text, indented.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(count);
    lines[from..]
        .iter()
        .map(|line| format!("  {line}\n"))
        .collect()
}

fn cache_directory() -> PathBuf {
    let caches = match std::env::var_os("XDG_CACHE_HOME") {
        Some(caches) if !caches.is_empty() => PathBuf::from(caches),
        _ => std::env::home_dir()
            .unwrap_or_else(std::env::temp_dir)
            .join(".cache"),
    };
    caches.join("doorbuster").join("engines")
}

/// The Java that runs the engines: that of `JAVA_HOME`, else the one on the `PATH`.
fn java() -> Result<PathBuf, Error> {
    let java = match std::env::var_os("JAVA_HOME") {
        Some(home) if !home.is_empty() => Path::new(&home).join("bin").join("java"),
        _ => PathBuf::from("java"),
    };
    let Ok(output) = Command::new(&java).arg("-version").output() else {
        return Err(Error::NoJava { java });
    };
    let version = String::from_utf8_lossy(&output.stderr);
    match major_version(&version) {
        Some(17..=23) => Ok(java),
        _ => Err(Error::WrongJava {
            java,
            found: version
                .lines()
                .next()
                .unwrap_or("of an unknown version")
                .to_owned(),
        }),
    }
}

/// The major version: 17 of `openjdk version "17.0.15" 2025-04-15`; 1 of the older `1.8`.
fn major_version(output: &str) -> Option<u32> {
    let (_, quoted) = output.split_once('"')?;
    quoted.split(['.', '-', '"']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_the_versions_of_the_poms() {
        for package in [KAFKA, CASSANDRA, REGISTRY] {
            let (_, version) = package.name.split_once('-').unwrap();
            assert!(package.what.ends_with(version), "{}", package.what);
            let tag = format!("<version>{version}");
            assert!(
                package.pom.contains(&tag),
                "{} is not in its pom",
                package.name
            );
        }
    }

    #[test]
    fn java_versions_are_read() {
        assert_eq!(
            major_version("openjdk version \"17.0.15\" 2025-04-15\n"),
            Some(17)
        );
        assert_eq!(
            major_version("openjdk version \"25\" 2025-09-16\n"),
            Some(25)
        );
        assert_eq!(major_version("java version \"1.8.0_402\"\n"), Some(1));
        assert_eq!(major_version("no such thing"), None);
    }

    #[test]
    fn the_end_of_a_log_is_short() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "  b\n  c\n");
        assert_eq!(last_lines("", 2), "");
    }
}
