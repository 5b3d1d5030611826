//! One table binds each topic to its schema.

use std::fmt;

/// The topics of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Commands: everything that a product has to decide on, in order. Key: product id.
    PurchaseAttempts,
    /// What was decided on each command. Key: product id, or empty for a claim.
    StockDecisions,
    /// Checkpoints of the deciders. Key: product id, or empty for the record that completes one.
    ProductSnapshots,
}

impl Topic {
    /// Every topic, in the order in which a purchase passes through them.
    pub const ALL: [Topic; 3] = [
        Topic::PurchaseAttempts,
        Topic::StockDecisions,
        Topic::ProductSnapshots,
    ];

    /// The topic's name.
    pub const fn name(self) -> &'static str {
        match self {
            Topic::PurchaseAttempts => "purchase-attempts",
            Topic::StockDecisions => "stock-decisions",
            Topic::ProductSnapshots => "product-snapshots",
        }
    }

    /// The registry's subject for the topic's values.
    pub const fn subject(self) -> &'static str {
        match self {
            Topic::PurchaseAttempts => "purchase-attempts-value",
            Topic::StockDecisions => "stock-decisions-value",
            Topic::ProductSnapshots => "product-snapshots-value",
        }
    }

    /// The Avro schema that values are written with today.
    pub const fn schema_json(self) -> &'static str {
        match self {
            Topic::PurchaseAttempts => include_str!("../avro/purchase-attempts.avsc"),
            Topic::StockDecisions => include_str!("../avro/stock-decisions.avsc"),
            Topic::ProductSnapshots => include_str!("../avro/product-snapshots.avsc"),
        }
    }

    /// The schema's id where there is no registry to assign one. A new version of a schema gets a new
    /// id here, and the old one goes into [`Topic::older_schemas`].
    pub const fn embedded_schema_id(self) -> u32 {
        match self {
            Topic::PurchaseAttempts => 4,
            Topic::StockDecisions => 5,
            Topic::ProductSnapshots => 6,
        }
    }

    /// The schemas of the versions before today's, with the ids they have where there is no registry.
    pub const fn older_schemas(self) -> &'static [(u32, &'static str)] {
        match self {
            Topic::PurchaseAttempts => &[(1, include_str!("../golden/v1/purchase-attempts.avsc"))],
            Topic::StockDecisions => &[(2, include_str!("../golden/v1/stock-decisions.avsc"))],
            Topic::ProductSnapshots => &[(3, include_str!("../golden/v1/product-snapshots.avsc"))],
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
