//! The calls of the registry's API: through schema_registry_converter where it has them, and the others
//! as documented by Confluent.

use std::error::Error;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_schema_by_id_and_type, post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, SchemaType, SuppliedSchema};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::warn;

use crate::{COMPATIBILITY, Options, RegistryError};

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a call is tried when the registry answers with a conflict, before it counts as a conflict
/// with other schemas.
const CONFLICTS: u32 = 4;
/// The pause in between.
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);
/// The most versions of a subject that are read.
const MAX_VERSIONS: usize = 300;
/// The registry's own error code for an id that no schema has.
const SCHEMA_NOT_FOUND: u32 = 40_403;
/// The most characters of an answer that are quoted.
const MAX_QUOTED: usize = 1_000;

/// A version of a subject.
#[derive(Deserialize)]
pub(crate) struct Version {
    pub(crate) id: u32,
    pub(crate) schema: String,
}

/// A client of the registry.
pub(crate) struct Registry {
    settings: SrSettings,
    client: Client,
    url: String,
    username: Option<String>,
    password: Option<String>,
}

impl Registry {
    /// Checks the options and creates the client, without a call.
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

    /// The level of compatibility that is set for a subject itself.
    pub(crate) async fn compatibility(&self, subject: &str) -> Result<String, RegistryError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Config {
            compatibility_level: String,
        }
        let config: Config = self.get(subject, &format!("config/{subject}")).await?;
        Ok(config.compatibility_level)
    }

    /// Sets a subject to accept only schemas that are compatible with all its versions, in both
    /// directions. The subject need not exist yet.
    pub(crate) async fn demand_compatibility(&self, subject: &str) -> Result<(), RegistryError> {
        let body = json!({ "compatibility": COMPATIBILITY });
        despite_others(|| async {
            let request = self.request(Method::PUT, &format!("config/{subject}"));
            send(subject, with_body(request, &body)).await.map(drop)
        })
        .await
    }

    /// The id of a schema under a subject; none if the subject does not have it, or does not exist.
    /// Changes nothing.
    pub(crate) async fn look_up(
        &self,
        subject: &str,
        schema: &str,
    ) -> Result<Option<u32>, RegistryError> {
        #[derive(Deserialize)]
        struct Found {
            id: u32,
        }
        let path = format!("subjects/{subject}");
        let body = json!({ "schemaType": "AVRO", "schema": schema });
        let request = with_body(self.request(Method::POST, &path), &body);
        match send(subject, request).await {
            Ok(answer) => read::<Found>(answer, &path).await.map(|it| Some(it.id)),
            Err(RegistryError::Absent { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Registers a schema as the subject's newest version, and returns its id. Looks it up before each
    /// try, since another process may have registered it meanwhile.
    pub(crate) async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let new = SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
        despite_others(|| async {
            if let Some(id) = self.look_up(subject, schema).await? {
                return Ok(id);
            }
            let registered = post_schema(&self.settings, subject.to_owned(), new.clone()).await;
            let id = registered.map_err(|error| failure(subject, &error))?.id;
            self.remove_doubles(subject, id).await?;
            Ok(id)
        })
        .await
    }

    /// A subject's versions.
    pub(crate) async fn versions(&self, subject: &str) -> Result<Vec<u32>, RegistryError> {
        let path = format!("subjects/{subject}/versions");
        let versions: Vec<u32> = self.get(subject, &path).await?;
        if versions.len() > MAX_VERSIONS {
            let why = format!(
                "subject {subject} has {} versions, but at most {MAX_VERSIONS} are read",
                versions.len()
            );
            return Err(RegistryError::Refused(why));
        }
        Ok(versions)
    }

    /// A version of a subject; none if it was removed.
    pub(crate) async fn version(
        &self,
        subject: &str,
        version: u32,
    ) -> Result<Option<Version>, RegistryError> {
        let path = format!("subjects/{subject}/versions/{version}");
        match self.get(subject, &path).await {
            Err(RegistryError::Absent { .. }) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Removes the versions of a subject that have the same schema as an earlier one, of this id. Some
    /// registries make them when two services register a new schema at the same moment. Whoever
    /// registers last finds all of them.
    async fn remove_doubles(&self, subject: &str, id: u32) -> Result<(), RegistryError> {
        let mut is_known = false;
        for version in self.versions(subject).await? {
            let found = self.version(subject, version).await?;
            if found.is_none_or(|found| found.id != id) {
                continue;
            }
            if !std::mem::replace(&mut is_known, true) {
                continue;
            }
            let path = format!("subjects/{subject}/versions/{version}");
            match send(subject, self.request(Method::DELETE, &path)).await {
                // Another service may have removed it first.
                Ok(_) | Err(RegistryError::Absent { .. }) => {}
                Err(RegistryError::Refused(why)) => warn!(
                    subject,
                    version, why, "a version with the same schema as an earlier one stays"
                ),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The schema with an id, also when it was deleted from its subject; none if no schema has the id.
    pub(crate) async fn schema(&self, id: u32) -> Result<Option<String>, RegistryError> {
        match get_schema_by_id_and_type(id, &self.settings, SchemaType::Avro).await {
            Ok(registered) => Ok(Some(registered.schema)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(failure(&format!("schema {id}"), &error)),
        }
    }

    /// The subjects that a schema is registered under, or was.
    pub(crate) async fn subjects(&self, id: u32) -> Result<Vec<String>, RegistryError> {
        #[derive(Deserialize)]
        struct SubjectVersion {
            subject: String,
        }
        let path = format!("schemas/ids/{id}/versions?deleted=true");
        let versions: Vec<SubjectVersion> = self.get(&format!("schema {id}"), &path).await?;
        Ok(versions
            .into_iter()
            .map(|version| version.subject)
            .collect())
    }

    async fn get<T: DeserializeOwned>(&self, about: &str, path: &str) -> Result<T, RegistryError> {
        let answer = send(about, self.request(Method::GET, path)).await?;
        read(answer, path).await
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

/// Makes a call that other processes may be making at the same time. Some registries answer with a
/// conflict when two clients create a subject at the same time. The second client's next try then
/// finds what the first one created.
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

fn with_body(request: RequestBuilder, body: &Value) -> RequestBuilder {
    request
        .header("content-type", "application/vnd.schemaregistry.v1+json")
        .body(body.to_string())
}

async fn read<T: DeserializeOwned>(answer: Response, path: &str) -> Result<T, RegistryError> {
    answer.json().await.map_err(|error| {
        let why = with_causes(&error);
        RegistryError::Unreachable(format!("the answer to {path} cannot be read: {why}"))
    })
}

/// Sends a request that schema_registry_converter does not support.
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
    let text = answer.text().await.unwrap_or_default();
    if status == StatusCode::NOT_FOUND && is_absent(&text) {
        let subject = about.to_owned();
        return Err(RegistryError::Absent { subject });
    }
    let message = quoted(&text);
    let why = format!("{url} was answered with {status}: {message}");
    Err(refusal(status.as_u16(), about, message, why))
}

/// Whether an answer with status 404 is the registry's, for a subject, a version or a schema that it
/// does not have. A proxy's, or that of another server, is not.
fn is_absent(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Refusal {
        error_code: u32,
    }
    let refusal = serde_json::from_str::<Refusal>(text);
    refusal.is_ok_and(|refusal| matches!(refusal.error_code, 404 | 40_401..=40_403))
}

/// The error for a failed call about a subject or a schema.
fn failure(about: &str, error: &SRCError) -> RegistryError {
    let why = with_causes(error);
    let answer = error.source().and_then(|it| it.downcast_ref::<RawError>());
    match (status(error), answer) {
        (Some(status), Some(answer)) => refusal(status, about, quoted(&answer.message), why),
        _ if error.retriable => RegistryError::Unreachable(why),
        _ => RegistryError::Refused(format!("{about}: {why}")),
    }
}

/// Whether the registry itself has answered that no schema has the id, and not a proxy before it.
fn is_not_found(error: &SRCError) -> bool {
    let answer = error.source().and_then(|it| it.downcast_ref::<RawError>());
    status(error) == Some(404) && answer.is_some_and(|it| it.error_code == SCHEMA_NOT_FOUND)
}

/// The error for an answer without success to a call about a subject or a schema.
fn refusal(status: u16, about: &str, message: String, why: String) -> RegistryError {
    match status {
        409 => RegistryError::Incompatible {
            subject: about.to_owned(),
            message,
        },
        408 | 429 | 500.. => RegistryError::Unreachable(why),
        _ => RegistryError::Refused(format!("{about}: {why}")),
    }
}

/// The HTTP status of an answer without success. schema_registry_converter has it only in its text.
/// The registry's own error code cannot take its place: it is missing when a proxy answered, and 0 when
/// Apicurio answers with a conflict because two clients registered at the same time.
fn status(error: &SRCError) -> Option<u16> {
    let (_, status) = error.error.split_once("failed with status ")?;
    status.split(' ').next()?.parse().ok()
}

/// An error's text with all its causes. The converter's own text for an error repeats its cause and
/// mentions caches.
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
