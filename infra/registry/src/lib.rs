//! Schema ids from a Confluent-compatible registry.
//!
//! At its start a service looks the current schemas up, registers those that are missing, and learns
//! the ids of all other versions that its records may have. From then on it asks the registry only
//! about unknown ids, which a newer version of the product has written. A task of its own does that:
//! no purchase waits for the registry.

mod calls;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemas::codec::{Codec, LearnError};
use schemas::topics::Topic;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::calls::Registry;

/// How often [`follow`] checks for unknown ids that the codec has found in records.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long it pauses after a lookup that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// After how many answers that an id is not a schema of the topic, a second apart, it is taken as
/// foreign.
const FOREIGN_ANSWERS: u32 = 3;
/// The most ids whose answers are counted.
const MAX_COUNTED: usize = 1_000;

/// What every subject must demand of a new schema.
const COMPATIBILITY: &str = "FULL_TRANSITIVE";
/// Stands for the id of a schema that may not be registered. No schema has it: registries count with
/// signed numbers.
const NO_ID: u32 = u32::MAX;

/// The registry's address, and the names of the schemas in it.
#[derive(Clone, Default)]
pub struct Options {
    /// Its address, such as `http://127.0.0.1:8081`, with the path if the API has one.
    pub url: String,
    /// The user, if the registry requires a login (HTTP basic authentication).
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// The prefix of each topic's subject, the same as that of the topics.
    pub subject_prefix: String,
}

impl Options {
    /// The subject of a topic's values.
    pub fn subject(&self, topic: Topic) -> String {
        format!("{}{}", self.subject_prefix, topic.subject())
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The part before an '@' may be a password.
        let url = match self.url.rsplit_once('@') {
            Some((_, host)) => &format!("(hidden)@{host}"),
            None => &self.url,
        };
        f.debug_struct("Options")
            .field("url", url)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "(hidden)"))
            .field("subject_prefix", &self.subject_prefix)
            .finish()
    }
}

/// Why a call to the registry failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The registry was not reached, or could not answer. A retry may succeed.
    #[error("the schema registry cannot be reached: {0}")]
    Unreachable(String),
    /// A schema is not compatible with the other versions of its subject. A retry cannot help: choose
    /// another subject prefix, or delete the subject if its records are not needed.
    #[error(
        "the current schema is not compatible with those under subject {subject} of the schema \
         registry, which may be another product's: {message}; choose another topic prefix"
    )]
    Incompatible {
        /// The subject.
        subject: String,
        /// The registry's message.
        message: String,
    },
    /// A subject does not exist, so no service has ever started with this registry and topic prefix.
    #[error(
        "subject {subject} is not in the schema registry: no service was started with this registry \
         and topic prefix"
    )]
    Absent {
        /// The subject.
        subject: String,
    },
    /// The registry refused the call, or the options are not valid. A retry cannot help.
    #[error("the schema registry cannot be used: {0}")]
    Refused(String),
}

/// Looks the current schemas up, registers those that are missing, learns the ids of every version
/// under their subjects, and returns a codec that writes the current versions and reads all of them.
///
/// May be called repeatedly and by several processes. From then on each subject accepts only schemas
/// that are compatible with all its versions in both directions (`FULL_TRANSITIVE`). A registry that
/// has the schemas already need not allow to change anything.
pub async fn connect(options: &Options) -> Result<Codec, RegistryError> {
    let registry = Registry::new(options)?;
    let mut ids = [0; Topic::ALL.len()];
    for topic in Topic::ALL {
        let subject = options.subject(topic);
        let schema = topic.schema_json();
        ids[topic as usize] = match registry.look_up(&subject, schema).await? {
            Some(id) => {
                keep_compatible(&registry, &subject).await?;
                id
            }
            None => {
                registry.demand_compatibility(&subject).await?;
                registry.register(&subject, schema).await?
            }
        };
    }
    let codec = Codec::with_ids(ids);
    learn_versions(&registry, options, ids, &codec).await?;
    Ok(codec)
}

/// Learns the ids of every version under the topics' subjects, and returns a codec that reads all of
/// them. Changes nothing in the registry. The codec must not be used to write, since the current
/// schemas may not be registered.
///
/// # Errors
///
/// [`RegistryError::Absent`] when a subject does not exist.
pub async fn connect_to_read(options: &Options) -> Result<Codec, RegistryError> {
    let registry = Registry::new(options)?;
    let mut ids = [NO_ID; Topic::ALL.len()];
    for topic in Topic::ALL {
        let subject = options.subject(topic);
        let found = registry.look_up(&subject, topic.schema_json()).await?;
        ids[topic as usize] = found.unwrap_or(NO_ID);
    }
    let codec = Codec::with_ids(ids);
    learn_versions(&registry, options, ids, &codec).await?;
    Ok(codec)
}

async fn learn_versions(
    registry: &Registry,
    options: &Options,
    ids: [u32; Topic::ALL.len()],
    codec: &Codec,
) -> Result<(), RegistryError> {
    for topic in Topic::ALL {
        let subject = options.subject(topic);
        let mut schemas = Vec::new();
        for version in registry.versions(&subject).await? {
            schemas.extend(registry.version(&subject, version).await?);
        }
        // The registry lists versions from the first on. Those before today's are older programs'.
        let today = ids[topic as usize];
        let older = schemas.iter().position(|schema| schema.id == today);
        for (index, schema) in schemas.iter().enumerate() {
            let learned = match older {
                Some(today) if index < today => codec.learn_older(topic, schema.id, &schema.schema),
                _ => codec.learn(topic, schema.id, &schema.schema),
            };
            learned.map_err(|error| not_learned(topic, schema.id, &error))?;
        }
    }
    Ok(())
}

/// Sets the compatibility of a subject that has the current schema, unless it is set already. Where
/// that is not allowed, the service works without.
async fn keep_compatible(registry: &Registry, subject: &str) -> Result<(), RegistryError> {
    let level = registry.compatibility(subject).await;
    if level.as_deref() == Ok(COMPATIBILITY) {
        return Ok(());
    }
    match registry.demand_compatibility(subject).await {
        Err(RegistryError::Refused(why)) => {
            warn!(
                subject,
                why,
                "the subject's compatibility is not {COMPATIBILITY} and cannot be set; set it in the \
                 registry, so that it refuses schemas that older services cannot read"
            );
            Ok(())
        }
        demanded => demanded,
    }
}

/// Until `stop`, looks up unknown ids that the codec has found in records and teaches the codec their
/// schemas, so that the records can be read at the next try, or that they are no schemas of the topic.
/// A lookup that fails is repeated.
pub async fn follow(options: Options, codec: Arc<Codec>, stop: CancellationToken) {
    let registry = match Registry::new(&options) {
        Ok(registry) => registry,
        Err(error) => {
            error!(%error, "the schemas of newer versions cannot be learned, because the registry's options are not valid");
            return;
        }
    };
    let following = async {
        let mut reported = Vec::new();
        let mut foreign = ForeignAnswers::default();
        loop {
            sleep(LOOK_EVERY).await;
            let mut failed = Vec::new();
            for (topic, id) in codec.take_unknown() {
                match ask(&registry, &options.subject(topic), &codec, topic, id).await {
                    Ok(Answer::Learned) => info!(%topic, id, "learned a schema of another version"),
                    Ok(Answer::Foreign(why)) if foreign.suffice(topic, id) => {
                        warn!(%topic, id, why, "records with a foreign schema are skipped");
                        codec.learn_foreign(topic, id);
                    }
                    Ok(Answer::Foreign(why)) => {
                        failed.push((topic, id, RegistryError::Refused(why)));
                    }
                    Err(error) => failed.push((topic, id, error)),
                }
            }
            if failed.is_empty() {
                continue;
            }
            if failed != reported {
                for (topic, id, error) in &failed {
                    warn!(%topic, id, %error, "a schema id is still unknown; it is looked up again");
                }
                reported = failed;
            }
            sleep(RETRY_AFTER).await;
        }
    };
    stop.run_until_cancelled(following).await;
}

/// How often the registry has answered that an id is not a schema of the topic. One answer is not
/// enough: a registry of several servers may not have a new schema on all of them yet.
#[derive(Default)]
struct ForeignAnswers(HashMap<(Topic, u32), u32>);

impl ForeignAnswers {
    /// Counts one answer; whether they are enough.
    fn suffice(&mut self, topic: Topic, id: u32) -> bool {
        if self.0.len() >= MAX_COUNTED {
            self.0.clear();
        }
        let answers = self.0.entry((topic, id)).or_default();
        *answers += 1;
        if *answers < FOREIGN_ANSWERS {
            return false;
        }
        self.0.remove(&(topic, id));
        true
    }
}

/// What the registry has answered about an id.
enum Answer {
    /// It is a schema of the topic, and the codec knows it now.
    Learned,
    /// It is not a schema of the topic.
    Foreign(String),
}

/// Looks up the schema of an id, which must be registered under the subject.
async fn ask(
    registry: &Registry,
    subject: &str,
    codec: &Codec,
    topic: Topic,
    id: u32,
) -> Result<Answer, RegistryError> {
    let Some(schema) = registry.schema(id).await? else {
        return Ok(Answer::Foreign(format!("schema {id} is not registered")));
    };
    let subjects = registry.subjects(id).await?;
    if !subjects.iter().any(|it| it == subject) {
        let under = subjects.join(", ");
        let why = format!("schema {id} is not registered under {subject}, but under {under}");
        return Ok(Answer::Foreign(why));
    }
    let learned = codec.learn(topic, id, &schema);
    learned.map_err(|error| not_learned(topic, id, &error))?;
    Ok(Answer::Learned)
}

fn not_learned(topic: Topic, id: u32, error: &LearnError) -> RegistryError {
    RegistryError::Refused(format!("schema {id} of {topic}: {error}"))
}
