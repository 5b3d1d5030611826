//! Schema ids from a Confluent-compatible registry.
//!
//! A service that starts registers today's schemas and learns the ids of all others that its
//! records may have. From then on it asks the registry only about ids that it meets and does
//! not know, which a newer version of the product has written, and that by a task of its own:
//! nothing on the way of a purchase waits for the registry.

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

/// How often [`follow`] looks for ids that the codec has met and does not know.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long it rests when the registry did not tell it about one of them.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Where the registry is, and under which names the schemas are in it.
#[derive(Clone, Default)]
pub struct Options {
    /// Its address, such as `http://127.0.0.1:8081`, with the path if the API has one.
    pub url: String,
    /// Who asks, if the registry wants to know (HTTP basic authentication).
    pub username: Option<String>,
    /// The password for that.
    pub password: Option<String>,
    /// What stands in front of each topic's subject: the prefix of the topics.
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
        // What stands before an '@' may be a password.
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

/// Why the registry did not give what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// It was not reached, or not able to answer. The same call may succeed later.
    #[error("the schema registry cannot be reached: {0}")]
    Unreachable(String),
    /// A schema does not go with those that stand under its subject. Nothing helps but another
    /// subject prefix, or to remove the subject if its records are not needed.
    #[error(
        "today's schema does not go with those under subject {subject} of the schema registry, \
         which may be another product's; the registry said: {said}"
    )]
    Incompatible {
        /// The subject.
        subject: String,
        /// What the registry said.
        said: String,
    },
    /// It will not do what it was asked, or was asked wrongly. Trying again cannot help.
    #[error("the schema registry is of no use as it is set up: {0}")]
    Refused(String),
}

/// Registers today's schemas, learns the ids of every version under their subjects, and makes
/// the codec that writes the first and reads all.
///
/// May be called as often and by as many as like. From then on each subject takes only schemas
/// whose readers and those of all others read each other's records (`FULL_TRANSITIVE`).
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

/// Until `stop`, tells the codec about the ids that it meets and does not know, so that what
/// could not be read can be read the next time. That takes about as long as the registry takes
/// to answer, and while it does not answer, it is asked again.
pub async fn follow(options: Options, codec: Arc<Codec>, stop: CancellationToken) {
    let registry = match Registry::new(&options) {
        Ok(registry) => registry,
        Err(error) => {
            error!(%error, "schema ids of newer versions will not be learned");
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
                    warn!(%topic, id, %error, "a schema id stays unknown; asking on");
                }
                reported = failed;
            }
            sleep(RETRY_AFTER).await;
        }
    };
    stop.run_until_cancelled(following).await;
}

/// Asks for the schema of an id, which must stand under the subject.
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
        let why = format!("schema {id} is not one of {subject}, but stands under {under}");
        return Err(RegistryError::Refused(why));
    }
    learn(codec, topic, id, &schema)
}

fn learn(codec: &Codec, topic: Topic, id: u32, schema: &str) -> Result<(), RegistryError> {
    codec
        .learn(topic, id, schema)
        .map_err(|error| RegistryError::Refused(format!("schema {id} of {topic}: {error}")))
}
