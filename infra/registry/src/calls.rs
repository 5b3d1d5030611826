//! The calls of the registry's API that we need: those that schema_registry_converter has
//! through it, and the others as they stand in Confluent's description.

use std::error::Error;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response};
use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_schema_by_id_and_type, get_schema_by_subject_and_version, post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{
    RawError, RegisteredSchema, SchemaType, SuppliedSchema,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{Options, RegistryError};

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a conflict is met before it is taken to be one with other schemas.
const CONFLICTS: u32 = 4;
/// How long to wait in between.
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);
/// The most versions that a subject may have.
const MAX_VERSIONS: usize = 300;
/// The longest that an answer is quoted, in characters.
const MAX_QUOTED: usize = 1_000;

/// A registry.
pub(crate) struct Registry {
    settings: SrSettings,
    client: Client,
    url: String,
    username: Option<String>,
    password: Option<String>,
}

impl Registry {
    /// A registry that has not been asked anything yet.
    pub(crate) fn new(options: &Options) -> Result<Self, RegistryError> {
        check(options)?;
        let url = options.url.trim_end_matches('/').to_owned();
        let mut builder = SrSettings::new_builder(url.clone());
        builder.set_timeout(TIMEOUT);
        if let Some(username) = &options.username {
            builder.set_basic_authorization(username, options.password.as_deref());
        }
        let settings = builder
            .build()
            .map_err(|error| RegistryError::Refused(with_causes(&error)))?;
        let client = Client::builder()
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| RegistryError::Refused(with_causes(&error)))?;
        Ok(Self {
            settings,
            client,
            url,
            username: options.username.clone(),
            password: options.password.clone(),
        })
    }

    /// Lets a subject take only schemas that go with all it has, both ways. The subject need
    /// not be there yet.
    pub(crate) async fn demand_compatibility(&self, subject: &str) -> Result<(), RegistryError> {
        let body = json!({ "compatibility": "FULL_TRANSITIVE" }).to_string();
        despite_others(|| async {
            let request = self
                .request(Method::PUT, &format!("config/{subject}"))
                .header("content-type", "application/vnd.schemaregistry.v1+json")
                .body(body.clone());
            send(subject, request).await.map(drop)
        })
        .await
    }

    /// The id of a schema under a subject, which is made the subject's newest if it has none
    /// such.
    pub(crate) async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let schema = SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
        despite_others(|| async {
            post_schema(&self.settings, subject.to_owned(), schema.clone())
                .await
                .map(|registered| registered.id)
                .map_err(|error| failure(subject, &error))
        })
        .await
    }

    /// A subject's versions.
    pub(crate) async fn versions(&self, subject: &str) -> Result<Vec<u32>, RegistryError> {
        let path = format!("subjects/{subject}/versions");
        let versions: Vec<u32> = self.get(subject, &path).await?;
        if versions.len() > MAX_VERSIONS {
            let why = format!(
                "subject {subject} has {} versions; at most {MAX_VERSIONS} are read",
                versions.len()
            );
            return Err(RegistryError::Refused(why));
        }
        Ok(versions)
    }

    /// A version of a subject.
    pub(crate) async fn version(
        &self,
        subject: &str,
        version: u32,
    ) -> Result<RegisteredSchema, RegistryError> {
        get_schema_by_subject_and_version(&self.settings, subject, Some(version))
            .await
            .map_err(|error| failure(subject, &error))
    }

    /// The schema of an id, also when it has been removed from its subject.
    pub(crate) async fn schema(&self, id: u32) -> Result<String, RegistryError> {
        get_schema_by_id_and_type(id, &self.settings, SchemaType::Avro)
            .await
            .map(|registered| registered.schema)
            .map_err(|error| failure(&format!("schema {id}"), &error))
    }

    /// The subjects that a schema stands under, or stood.
    pub(crate) async fn subjects(&self, id: u32) -> Result<Vec<String>, RegistryError> {
        #[derive(Deserialize)]
        struct Place {
            subject: String,
        }
        let path = format!("schemas/ids/{id}/versions?deleted=true");
        let places: Vec<Place> = self.get(&format!("schema {id}"), &path).await?;
        Ok(places.into_iter().map(|place| place.subject).collect())
    }

    async fn get<T: DeserializeOwned>(&self, about: &str, path: &str) -> Result<T, RegistryError> {
        let answer = send(about, self.request(Method::GET, path)).await?;
        answer.json().await.map_err(|error| {
            let why = with_causes(&error);
            RegistryError::Unreachable(format!("the answer to {path} cannot be read: {why}"))
        })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}/{path}", self.url));
        match &self.username {
            Some(username) => request.basic_auth(username, self.password.as_ref()),
            None => request,
        }
    }
}

fn check(options: &Options) -> Result<(), RegistryError> {
    let refused = |why: &str| Err(RegistryError::Refused(why.to_owned()));
    let is_http = |url: &reqwest::Url| ["http", "https"].contains(&url.scheme());
    let Some(url) = reqwest::Url::parse(&options.url).ok().filter(is_http) else {
        return refused("its address must be a URL that begins with http:// or https://");
    };
    if !url.username().is_empty() || url.password().is_some() {
        return refused(
            "user name and password have settings of their own; leave them out of the URL",
        );
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !options.subject_prefix.bytes().all(fits) {
        return refused(
            "the prefix of its subjects must consist of ASCII letters, digits, '.', '_' and '-'",
        );
    }
    Ok(())
}

/// Makes a call that others may be making at the same time. Some registries call it a conflict
/// when two are the first to speak of a subject; the second then finds what the first has done.
async fn despite_others<T, F: Future<Output = Result<T, RegistryError>>>(
    call: impl Fn() -> F,
) -> Result<T, RegistryError> {
    for _ in 1..CONFLICTS {
        match call().await {
            Err(RegistryError::Incompatible { .. }) => tokio::time::sleep(CONFLICT_PAUSE).await,
            outcome => return outcome,
        }
    }
    call().await
}

/// Sends a request that schema_registry_converter has no call for.
async fn send(about: &str, request: RequestBuilder) -> Result<Response, RegistryError> {
    let answer = request
        .send()
        .await
        .map_err(|error| RegistryError::Unreachable(with_causes(&error)))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let url = answer.url().to_string();
    let said = quoted(&answer.text().await.unwrap_or_default());
    let why = format!("{url} was answered with {status}: {said}");
    Err(refusal(status.as_u16(), about, said, why))
}

/// What a failed call about a subject or a schema means.
fn failure(about: &str, error: &SRCError) -> RegistryError {
    let why = with_causes(error);
    let answer = error.source().and_then(|it| it.downcast_ref::<RawError>());
    match (status(error), answer) {
        (Some(status), Some(answer)) => refusal(status, about, quoted(&answer.message), why),
        _ if error.retriable => RegistryError::Unreachable(why),
        _ => RegistryError::Refused(format!("{about}: {why}")),
    }
}

/// What an answer about a subject or a schema means that was none of success.
fn refusal(status: u16, about: &str, said: String, why: String) -> RegistryError {
    match status {
        409 => RegistryError::Incompatible {
            subject: about.to_owned(),
            said,
        },
        408 | 429 | 500.. => RegistryError::Unreachable(why),
        _ => RegistryError::Refused(format!("{about}: {why}")),
    }
}

/// The HTTP status of an answer that was none of success. schema_registry_converter tells it
/// only in its text; the registry's own error code beside it is missing where a proxy answered,
/// and is 0 where Apicurio calls it a conflict that two registered at once.
fn status(error: &SRCError) -> Option<u16> {
    let (_, status) = error.error.split_once("failed with status ")?;
    status.split(' ').next()?.parse().ok()
}

/// An error and what caused it, down to the ground. The converter's own text for an error
/// repeats its cause and speaks of caches.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = match error.downcast_ref::<SRCError>() {
        Some(error) => error.error.clone(),
        None => error.to_string(),
    };
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    quoted(&text)
}

fn quoted(text: &str) -> String {
    text.chars().take(MAX_QUOTED).collect()
}
