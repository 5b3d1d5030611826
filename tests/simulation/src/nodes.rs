//! The nodes: the services as production wires them, over a simulated connection.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use command_api::decider::{self, CheckpointPolicy, Decider};
use command_api::http::{CommandApi, KnownProducts, KnownRounds, RecentOrders};
use command_api::log_watch::{LogState, LogWatch};
use futures::stream::{FuturesUnordered, StreamExt};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use ports::EventLog;
use projector::run::Projector;
use query_api::http::QueryApi;
use query_api::live::{self, Live, LiveSettings};
use runtime::health::Health;
use runtime::settings::AdminToken;
use schemas::codec::Codec;
use schemas::placement::Placement;
use tokio_util::sync::CancellationToken;
use turmoil::net::TcpListener;
use web::receipt::ReceiptKey;

use crate::plan::Deployment;
use crate::world::{Connection, Node, Role, World};

/// The port of every node that speaks HTTP.
pub const PORT: u16 = 80;
/// The token of the sales staff.
pub const ADMIN_TOKEN: &str = "open-sesame";
/// The longest that the command API works on one request, and that a request's head may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The key that receipts are signed with.
pub fn receipt_key() -> ReceiptKey {
    ReceiptKey::new(&[7; 32])
}

/// Runs a node until it is crashed.
pub async fn run(world: Arc<World>, node: Node, deployment: Deployment) -> turmoil::Result {
    let connection = world.connect(node);
    let health = world.new_health(node);
    match node.0 {
        Role::CommandApi => serve(command_api(&connection, &health).await).await?,
        Role::Decider => decide(connection, node, deployment, health).await,
        Role::Projector => project(connection, health).await,
        Role::QueryApi => serve(query_api(&connection, deployment, health)).await?,
        Role::Shop => {
            let decider = decide(connection.clone(), node, deployment, health.clone());
            tokio::spawn(decider);
            tokio::spawn(project(connection.clone(), health.clone()));
            let questions = query_api(&connection, deployment, health.clone());
            serve(command_api(&connection, &health).await.merge(questions)).await?;
        }
    }
    Ok(())
}

async fn command_api(connection: &Arc<Connection>, health: &Health) -> Router {
    let log_state = LogState::default();
    let watch = LogWatch {
        log: connection.clone(),
        store: connection.clone(),
        codec: Arc::new(Codec::embedded()),
        component: health.component("log"),
        state: log_state.clone(),
    };
    // Before the first order.
    watch.check_all().await;
    tokio::spawn(watch.run());
    let commands = CommandApi {
        log: connection.clone(),
        store: connection.clone(),
        codec: Arc::new(Codec::embedded()),
        placement: Placement::new(connection.partitions()),
        receipts: receipt_key(),
        clock: connection.clone(),
        known: KnownProducts::default(),
        log_state,
        rounds: KnownRounds::default(),
        recent: RecentOrders::default(),
    };
    let admin = AdminToken::new(ADMIN_TOKEN);
    command_api::http::router(Arc::new(commands), admin, REQUEST_TIMEOUT).into()
}

async fn decide(connection: Arc<Connection>, node: Node, deployment: Deployment, health: Health) {
    let decider = Decider {
        log: connection.clone(),
        codec: Arc::new(Codec::embedded()),
        clock: connection,
        health,
        name: node.to_string().into(),
        checkpoints: CheckpointPolicy {
            min_decisions: deployment.checkpoint_every,
        },
    };
    decider::run(decider, CancellationToken::new()).await;
}

async fn project(connection: Arc<Connection>, health: Health) {
    let projector = Projector {
        log: connection.clone(),
        store: connection,
        codec: Arc::new(Codec::embedded()),
        health,
    };
    projector::run::run(projector, CancellationToken::new()).await;
}

/// The query API, whose tails start at once. It keeps little in memory, so that answers come from
/// the store, too.
fn query_api(connection: &Arc<Connection>, deployment: Deployment, health: Health) -> Router {
    let settings = LiveSettings {
        keep_attempts: deployment.keep_attempts,
        max_attempts: 10_000,
        max_undecided: deployment.max_undecided,
        max_waiters: 200,
    };
    let live = Live::new(
        connection.clone(),
        connection.clone(),
        Arc::new(Codec::embedded()),
        settings,
    );
    let feeding = live::run(live.clone(), health, CancellationToken::new());
    tokio::spawn(feeding);
    let api = QueryApi {
        live,
        clock: connection.clone(),
    };
    query_api::http::router(api, AdminToken::new(ADMIN_TOKEN)).into()
}

/// Answers requests from the simulated network. One task serves all connections, so that a crash
/// closes them in order: a runtime drops its tasks in any order.
async fn serve(routes: Router) -> turmoil::Result {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let http = web::server::protocol(REQUEST_TIMEOUT);
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            accepted = listener.accept() => {
                let service = TowerToHyperService::new(routes.clone());
                let stream = TokioIo::new(accepted?.0);
                connections.push(http.serve_connection(stream, service));
            }
            // A client may close its connection at any time.
            Some(_ended) = connections.next() => {}
        }
    }
}
