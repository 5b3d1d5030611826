//! The parts of a set, stored as `engines.json` in its directory for processes that attach to it.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::packages::Installed;
use crate::tls::Tls;
use crate::{Cassandra, Error, Kafka, Options, Registry};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Set {
    /// The process that started it.
    pub starter: u32,
    pub kafka: Kafka,
    pub cassandra: Option<Cassandra>,
    pub registry: Option<Registry>,
}

impl Set {
    /// The set to run in a directory: a new one, or the one that was there before.
    pub fn make(dir: &Path, options: &Options, installed: Installed) -> Result<Self, Error> {
        let Installed {
            java,
            kafka,
            cassandra,
            registry,
        } = installed;
        let tls = options.secure.then(|| Tls::make(dir, &java)).transpose()?;
        let mut set = Self {
            starter: std::process::id(),
            kafka: Kafka::new(dir, options.brokers, &java, kafka, tls.clone()),
            cassandra: cassandra.map(|jars| Cassandra::new(dir, &java, jars, tls)),
            registry: registry.map(|jars| Registry::new(dir, &java, jars)),
        };
        if let Some(before) = Self::load(dir)? {
            set.continue_as(before, dir)?;
        }
        set.save(dir)?;
        Ok(set)
    }

    /// The set of a directory, if there was one.
    pub fn load(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join("engines.json");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(Error::io("read", &path))?,
        };
        let set = serde_json::from_str(&text).map_err(io::Error::from);
        set.map(Some).map_err(Error::io("parse", &path))
    }

    /// Starts every part, and returns when all parts answer.
    pub fn start(&self) -> Result<(), Error> {
        // All JVMs are started before any is waited for.
        if let Some(cassandra) = &self.cassandra {
            cassandra.prepare()?;
            cassandra.spawn()?;
        }
        if let Some(registry) = &self.registry {
            registry.prepare()?;
            registry.spawn()?;
        }
        self.kafka.prepare()?;
        self.kafka.start_all()?;
        self.cassandra.as_ref().map_or(Ok(()), Cassandra::wait)?;
        self.registry.as_ref().map_or(Ok(()), Registry::wait)
    }

    fn save(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join("engines.json");
        let text = serde_json::to_string_pretty(self).map_err(io::Error::from);
        let saved = text.and_then(|text| fs::write(&path, text));
        saved.map_err(Error::io("write", &path))
    }

    fn continue_as(&mut self, before: Self, dir: &Path) -> Result<(), Error> {
        let (found, requested) = (before.kind(), self.kind());
        if found != requested {
            return Err(Error::OtherKind {
                dir: dir.to_owned(),
                found,
                requested,
            });
        }
        self.kafka.continue_as(before.kafka);
        if let (Some(cassandra), Some(before)) = (&mut self.cassandra, &before.cassandra) {
            cassandra.continue_as(before);
        }
        if let (Some(registry), Some(before)) = (&mut self.registry, &before.registry) {
            registry.continue_as(before);
        }
        Ok(())
    }

    /// The parts of the set, in words.
    fn kind(&self) -> String {
        let brokers = match self.kafka.brokers.len() {
            1 => "1 broker".to_owned(),
            count => format!("{count} brokers"),
        };
        let mut parts = vec![brokers];
        parts.extend(self.cassandra.as_ref().map(|_| "Cassandra".to_owned()));
        parts.extend(self.registry.as_ref().map(|_| "a registry".to_owned()));
        parts.extend(self.kafka.tls.as_ref().map(|_| "secure".to_owned()));
        parts.join(", ")
    }
}
