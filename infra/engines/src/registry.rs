//! A schema registry that speaks Confluent's API: Apicurio, with its data in a file.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::process::Process;
use crate::{Error, ports};

/// The schema registry of a set.
#[derive(Debug, Serialize, Deserialize)]
pub struct Registry {
    java: PathBuf,
    jars: PathBuf,
    pub(crate) process: Process,
    port: u16,
}

/// The path of Confluent's API in Apicurio.
const API: &str = "/apis/ccompat/v7";

impl Registry {
    pub(crate) fn new(set: &Path, java: &Path, jars: PathBuf) -> Self {
        Self {
            java: java.to_owned(),
            jars,
            process: Process::new(set, "registry"),
            port: ports::free(),
        }
    }

    /// Continues as the registry that was here before, on its port if that is still free.
    pub(crate) fn continue_as(&mut self, before: &Self) {
        self.port = ports::this_or_free(before.port);
    }

    /// Stops the registry (SIGTERM, after 20 s SIGKILL), and returns when it has ended.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&self) -> Result<(), Error> {
        self.process.stop()
    }

    /// Starts the registry after [`Self::stop`], with its port and data, and waits until it
    /// answers.
    ///
    /// # Errors
    /// It does not answer within five minutes.
    pub fn start(&self) -> Result<(), Error> {
        self.spawn()?;
        self.wait()
    }

    /// The URL of the API for registry clients.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}{API}", self.port)
    }

    pub(crate) fn prepare(&self) -> Result<(), Error> {
        let dir = &self.process.dir;
        fs::create_dir_all(dir).map_err(Error::io("create", dir))
    }

    pub(crate) fn spawn(&self) -> Result<(), Error> {
        let jar = self
            .jars
            .join("apicurio-registry-app-2.6.13.Final-runner.jar");
        let data = self.process.dir.join("data");
        let arguments = [
            "-Xmx256m".to_owned(),
            // It gets few requests and runs briefly, so optimisation and many threads do not pay off.
            "-XX:TieredStopAtLevel=1".to_owned(),
            "-XX:+UseSerialGC".to_owned(),
            "-Dquarkus.http.host=127.0.0.1".to_owned(),
            format!("-Dquarkus.http.port={}", self.port),
            // By default its database is in memory and lost at every stop.
            format!(
                "-Dquarkus.datasource.jdbc.url=jdbc:h2:file:{};WRITE_DELAY=0",
                data.display()
            ),
            "-jar".to_owned(),
            jar.display().to_string(),
        ];
        self.process.spawn(&self.java, arguments)
    }

    pub(crate) fn wait(&self) -> Result<(), Error> {
        self.process.wait_until(|| self.answers())
    }

    /// Whether the registry lists its subjects.
    pub(crate) fn answers(&self) -> io::Result<()> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        // Its first answer can take seconds on busy cores.
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let request = format!("GET {API}/subjects HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        match &status[9..] {
            b"200" => Ok(()),
            _ => Err(io::Error::other(format!(
                "it answers {}",
                String::from_utf8_lossy(&status)
            ))),
        }
    }
}
