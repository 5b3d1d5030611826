//! The nodes: the services as production wires them, over a simulated line.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use command_api::decider::{self, CheckpointPolicy, Decider};
use command_api::http::{CommandApi, KnownProducts};
use futures::stream::{FuturesUnordered, StreamExt};
use hyper::server::conn::http1;
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

use crate::plan::Cast;
use crate::world::{Connection, Node, Role, World};

/// The port of every node that speaks HTTP.
pub const PORT: u16 = 80;
/// What the administration must know.
pub const ADMIN_TOKEN: &str = "open-sesame";
/// The longest that a door works on one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The key that receipts are signed with.
pub fn receipt_key() -> ReceiptKey {
    ReceiptKey::new(&[7; 32])
}

/// Runs a node until it is crashed.
pub async fn run(world: Arc<World>, node: Node, cast: Cast) -> turmoil::Result {
    let line = world.connect(node);
    match node.0 {
        Role::Door => serve(door(&line)).await?,
        Role::Decider => decide(line, node, cast).await,
        Role::Projector => project(line).await,
        Role::Query => serve(questions(&line, cast)).await?,
        Role::Shop => {
            tokio::spawn(decide(line.clone(), node, cast));
            tokio::spawn(project(line.clone()));
            serve(door(&line).merge(questions(&line, cast))).await?;
        }
    }
    Ok(())
}

fn door(line: &Arc<Connection>) -> Router {
    let commands = CommandApi {
        log: line.clone(),
        store: line.clone(),
        codec: Arc::new(Codec::embedded()),
        placement: Placement::new(line.partitions()),
        receipts: receipt_key(),
        clock: line.clone(),
        known: KnownProducts::default(),
    };
    let admin = AdminToken::new(ADMIN_TOKEN);
    command_api::http::router(Arc::new(commands), admin, REQUEST_TIMEOUT).into()
}

async fn decide(line: Arc<Connection>, node: Node, cast: Cast) {
    let decider = Decider {
        log: line.clone(),
        codec: Arc::new(Codec::embedded()),
        clock: line,
        health: Health::default(),
        name: node.to_string().into(),
        checkpoints: CheckpointPolicy {
            min_decisions: cast.checkpoint_every,
        },
    };
    decider::run(decider, CancellationToken::new()).await;
}

async fn project(line: Arc<Connection>) {
    let projector = Projector {
        log: line.clone(),
        store: line,
        codec: Arc::new(Codec::embedded()),
        health: Health::default(),
    };
    projector::run::run(projector, CancellationToken::new()).await;
}

/// The read side, whose tails begin at once. It keeps little in memory, so that answers come
/// from the store, too.
fn questions(line: &Arc<Connection>, cast: Cast) -> Router {
    let settings = LiveSettings {
        keep_attempts: cast.keep_attempts,
        max_attempts: 10_000,
        max_undecided: cast.max_undecided,
        max_waiters: 200,
    };
    let live = Live::new(
        line.clone(),
        line.clone(),
        Arc::new(Codec::embedded()),
        settings,
    );
    tokio::spawn(live::run(
        live.clone(),
        Health::default(),
        CancellationToken::new(),
    ));
    let api = QueryApi {
        live,
        clock: line.clone(),
    };
    query_api::http::router(api, AdminToken::new(ADMIN_TOKEN)).into()
}

/// Answers requests from the simulated network. The connections are part of this one task, and
/// so are closed in their order when the node is crashed: a runtime ends its tasks in any.
async fn serve(routes: Router) -> turmoil::Result {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            accepted = listener.accept() => {
                let service = TowerToHyperService::new(routes.clone());
                let stream = TokioIo::new(accepted?.0);
                connections.push(http1::Builder::new().serve_connection(stream, service));
            }
            // A client that goes away is no news.
            Some(_ended) = connections.next() => {}
        }
    }
}
