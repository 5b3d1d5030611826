//! Schema ids from a Confluent-compatible registry.
//!
//! At its start a service registers the current schemas and learns the ids of all other versions that
//! its records may have. From then on it asks the registry only about unknown ids, which a newer
//! version of the product has written. A task of its own does that: no purchase waits for the
//! registry.

mod calls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemas::codec::Codec;
use schemas::topics::Topic;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::calls::Registry;

/// How often [`follow`] checks for unknown ids that the codec has found in records.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long it pauses after a lookup that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

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
    /// The registry refused the call, or the options are not valid. A retry cannot help.
    #[error("the schema registry cannot be used: {0}")]
    Refused(String),
}

/// Registers the current schemas, learns the ids of every version under their subjects, and returns a
/// codec that writes the current versions and reads all of them.
///
/// May be called repeatedly and by several processes. From then on each subject accepts only schemas
/// that are compatible with all its versions in both directions (`FULL_TRANSITIVE`).
pub async fn connect(options: &Options) -> Result<Codec, RegistryError> {
    let registry = Registry::new(options)?;
    let mut ids = [0; Topic::ALL.len()];
    for topic in Topic::ALL {
        let subject = options.subject(topic);
        registry.demand_compatibility(&subject).await?;
        ids[topic as usize] = registry.register(&subject, topic.schema_json()).await?;
    }
    let codec = Codec::with_ids(ids);
    for topic in Topic::ALL {
        let subject = options.subject(topic);
        for version in registry.versions(&subject).await? {
            let schema = registry.version(&subject, version).await?;
            learn(&codec, topic, schema.id, &schema.schema)?;
        }
    }
    Ok(codec)
}

/// Until `stop`, looks up unknown ids that the codec has found in records and teaches the codec their
/// schemas, so that the records can be read at the next try. A lookup that fails is repeated.
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
        loop {
            sleep(LOOK_EVERY).await;
            let mut failed = Vec::new();
            for (topic, id) in codec.take_unknown() {
                match ask(&registry, &options.subject(topic), &codec, topic, id).await {
                    Ok(()) => info!(%topic, id, "learned a schema of another version"),
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

/// Looks up the schema of an id, which must be registered under the subject.
async fn ask(
    registry: &Registry,
    subject: &str,
    codec: &Codec,
    topic: Topic,
    id: u32,
) -> Result<(), RegistryError> {
    let schema = registry.schema(id).await?;
    let subjects = registry.subjects(id).await?;
    if !subjects.iter().any(|it| it == subject) {
        let under = subjects.join(", ");
        let why = format!("schema {id} is not registered under {subject}, but under {under}");
        return Err(RegistryError::Refused(why));
    }
    learn(codec, topic, id, &schema)
}

fn learn(codec: &Codec, topic: Topic, id: u32, schema: &str) -> Result<(), RegistryError> {
    codec
        .learn(topic, id, schema)
        .map_err(|error| RegistryError::Refused(format!("schema {id} of {topic}: {error}")))
}
