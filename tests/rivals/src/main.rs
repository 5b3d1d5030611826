//! A front end over one of the rivals, for the comparison: `rival redis URL --listen ADDRESS`.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use rivals::{AppendOnly, Postgres, Redis, Seller, Take, serve};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Doorbuster's allocator, so that the allocator makes no difference.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long, global = true, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[command(subcommand)]
    rival: Rival,
}

#[derive(Subcommand)]
enum Rival {
    /// Decides by a script in Redis.
    Redis { url: String },
    /// Decides by a transaction in PostgreSQL.
    Postgres {
        config: String,
        take: Take,
        connections: u32,
    },
    /// Appends to Kafka and decides nothing.
    Kafka {
        brokers: String,
        topic: String,
        partitions: u32,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(arguments.listen).await?;
    let seller: Arc<dyn Seller> = match arguments.rival {
        Rival::Redis { url } => Arc::new(Redis::connect(&url).await?),
        Rival::Postgres {
            config,
            take,
            connections,
        } => Arc::new(Postgres::connect(&config, take, connections).await?),
        Rival::Kafka {
            brokers,
            topic,
            partitions,
        } => Arc::new(AppendOnly::connect(&brokers, topic, partitions)?),
    };
    serve(listener, seller, CancellationToken::new()).await;
    Ok(())
}
