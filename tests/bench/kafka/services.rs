//! The product's services, each a process of the real program.

use runtime::settings::Service;

use super::site::Site;
use crate::load::Endpoints;
use crate::server::Server;

/// All services of the product, each a process.
pub struct Services {
    commands: Server,
    decider: Server,
    projector: Server,
    reads: Server,
}

impl Services {
    /// Starts them, and returns when each is ready.
    pub async fn start(site: &Site) -> anyhow::Result<Self> {
        let services = Self {
            commands: site.start(Service::CommandApi).await?,
            decider: site.start(Service::Decider).await?,
            projector: site.start(Service::Projector).await?,
            reads: site.start(Service::QueryApi).await?,
        };
        for (_, server) in services.all() {
            server.ready().await?;
        }
        Ok(services)
    }

    pub fn endpoints(&self) -> Endpoints {
        Endpoints {
            orders: self.commands.address,
            reads: self.reads.address,
        }
    }

    /// Each by its name.
    pub fn all(&self) -> [(&'static str, &Server); 4] {
        [
            ("command-api", &self.commands),
            ("decider", &self.decider),
            ("projector", &self.projector),
            ("query-api", &self.reads),
        ]
    }

    /// Lets them end in order, first the one that takes orders.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.commands.stop().await?;
        self.decider.stop().await?;
        self.projector.stop().await?;
        self.reads.stop().await
    }

    /// Kills them.
    pub async fn kill(self) -> anyhow::Result<()> {
        let Self {
            commands,
            decider,
            projector,
            reads,
        } = self;
        for server in [commands, decider, projector, reads] {
            server.kill().await?;
        }
        Ok(())
    }
}
