//! What a process runs as. Each service uses some of the settings.

/// What a process runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// All services in one process, on the embedded engines.
    Serve,
    /// The command API alone.
    CommandApi,
    /// Deciders alone.
    Decider,
    /// Projectors alone.
    Projector,
    /// The query API alone.
    QueryApi,
    /// The audit, a command-line tool.
    Audit,
}

use Service::{Audit, CommandApi, Decider, Projector, QueryApi, Serve};

/// Everything that has settings.
pub(super) const ALL: &[Service] = &[Serve, CommandApi, Decider, Projector, QueryApi, Audit];
/// Those that run until they are stopped.
pub(super) const SERVICES: &[Service] = &[Serve, CommandApi, Decider, Projector, QueryApi];
/// Those with an HTTP API for shoppers.
pub(super) const HTTP_APIS: &[Service] = &[Serve, CommandApi, QueryApi];
/// Those that append to a topic.
pub(super) const APPENDERS: &[Service] = &[Serve, CommandApi, Decider];
/// Those that use Kafka and the schema registry.
pub(super) const ON_KAFKA: &[Service] = &[CommandApi, Decider, Projector, QueryApi, Audit];
/// Those that use the CQL store.
pub(super) const ON_CQL: &[Service] = &[CommandApi, Projector, QueryApi, Audit];

impl Service {
    /// The services that run alone, over Kafka and the CQL store.
    pub const ALONE: [Service; 4] = [CommandApi, Decider, Projector, QueryApi];

    /// The name of the subcommand.
    pub const fn name(self) -> &'static str {
        match self {
            Serve => "serve",
            CommandApi => "command-api",
            Decider => "decider",
            Projector => "projector",
            QueryApi => "query-api",
            Audit => "audit",
        }
    }

    /// Whether it has an HTTP API for shoppers.
    pub fn has_api(self) -> bool {
        HTTP_APIS.contains(&self)
    }

    /// The default of the setting `listen`.
    pub(super) const fn default_listen(self) -> &'static str {
        match self {
            CommandApi => "127.0.0.1:8081",
            QueryApi => "127.0.0.1:8082",
            Serve | Projector | Decider | Audit => "127.0.0.1:8080",
        }
    }

    /// The default of the setting `operations_listen`.
    pub(super) const fn default_operations_listen(self) -> &'static str {
        match self {
            Serve | Audit => "127.0.0.1:9080",
            CommandApi => "127.0.0.1:9081",
            QueryApi => "127.0.0.1:9082",
            Projector => "127.0.0.1:9083",
            Decider => "127.0.0.1:9084",
        }
    }
}
