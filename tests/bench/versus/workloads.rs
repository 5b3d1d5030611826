//! The workloads that every system runs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use rand::SeedableRng;
use rand::distr::Distribution;
use rand::rngs::StdRng;
use rand_distr::Zipf;
use serde::{Deserialize, Serialize};

use crate::load::{Endpoints, Load, Stock, open_sale, settled, visible};

/// The demand of one kind of sale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// One product that does not sell out, so that every attempt takes from one stock.
    Hot,
    /// A hundred products that do not sell out, with demand by Zipf's law.
    Zipf,
    /// A hundred thousand attempts for ten units.
    Storm,
    /// Units held for half a second, over and over.
    Holds,
}

/// More units than any run can buy.
const PLENTY: u32 = 100_000_000;
const ZIPF_PRODUCTS: usize = 100;
/// The draws before they repeat.
const ZIPF_DRAWS: usize = 65_536;
const STORM_UNITS: u64 = 10;
const STORM_ATTEMPTS: u64 = 100_000;
/// Few enough that a system with twenty thousand attempts a second holds all of them and waits for
/// their return.
const HELD_UNITS: u32 = 10_000;
const HOLD: Duration = Duration::from_millis(500);

impl Workload {
    pub const ALL: [Self; 4] = [Self::Hot, Self::Zipf, Self::Storm, Self::Holds];

    pub fn title(self) -> &'static str {
        match self {
            Self::Hot => "one hot product",
            Self::Zipf => "100 products, Zipf",
            Self::Storm => "sell-out storm",
            Self::Holds => "short holds",
        }
    }

    /// How long saturation lasts, given the usual time: the storm must place all its attempts even on
    /// a slow system.
    pub fn saturated(self, others: Duration) -> Duration {
        match self {
            Self::Storm => others * 3,
            _ => others,
        }
    }

    /// Puts its sales on, under names of this run alone.
    pub async fn open(self, endpoints: Endpoints, run: &str) -> anyhow::Result<Demand> {
        let count = match self {
            Self::Zipf => ZIPF_PRODUCTS,
            _ => 1,
        };
        let sales: Vec<String> = (0..count).map(|n| format!("{self}-{run}-{n}")).collect();
        let terms = match self {
            Self::Hot | Self::Zipf => format!(r#""stock":{PLENTY},"limit_per_buyer":1"#),
            Self::Storm => format!(r#""stock":{STORM_UNITS},"limit_per_buyer":1"#),
            Self::Holds => {
                let hold_ms = HOLD.as_millis();
                format!(r#""stock":{HELD_UNITS},"limit_per_buyer":1,"hold_ms":{hold_ms}"#)
            }
        };
        for sale in &sales {
            open_sale(endpoints.orders, sale, &terms).await?;
        }
        for sale in &sales {
            visible(endpoints.reads, sale).await?;
        }
        Ok(Demand {
            workload: self,
            endpoints,
            sales,
        })
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hot => "hot",
            Self::Zipf => "zipf",
            Self::Storm => "storm",
            Self::Holds => "holds",
        })
    }
}

/// A workload whose sales are on.
pub struct Demand {
    workload: Workload,
    endpoints: Endpoints,
    sales: Vec<String>,
}

impl Demand {
    /// A load as it is, but for these sales.
    pub fn of(&self, load: Load) -> Load {
        let products: Arc<[String]> = match self.workload {
            Workload::Zipf => self.draws(),
            _ => self.sales.clone().into(),
        };
        let to = match self.workload {
            Workload::Storm => STORM_ATTEMPTS,
            _ => u64::MAX,
        };
        Load {
            products,
            to,
            ..load
        }
    }

    /// The same draws for every system.
    fn draws(&self) -> Arc<[String]> {
        let zipf = Zipf::new(ZIPF_PRODUCTS as f64, 1.0).expect("the law has these parameters");
        let draws = zipf.sample_iter(StdRng::seed_from_u64(1));
        let ranks = draws.take(ZIPF_DRAWS);
        ranks
            .map(|rank| self.sales[rank as usize - 1].clone())
            .collect()
    }

    /// Waits until everything is decided, and checks the result.
    pub async fn settled(&self, answered: u64) -> anyhow::Result<()> {
        if self.workload == Workload::Holds {
            tokio::time::sleep(HOLD).await;
        }
        let mut sold = 0;
        for sale in &self.sales {
            let stock = match sale == &self.sales[0] {
                true => settled(self.endpoints.reads, sale).await?.stock,
                false => visible(self.endpoints.reads, sale).await?.stock,
            };
            let Stock {
                total,
                available,
                reserved,
                ..
            } = stock;
            ensure!(
                total == available + reserved + stock.sold,
                "units are missing of {stock:?}"
            );
            ensure!(reserved == 0, "holds have not run out: {stock:?}");
            sold += stock.sold;
        }
        let expected = match self.workload {
            Workload::Hot | Workload::Zipf => answered,
            Workload::Storm => answered.min(STORM_UNITS),
            Workload::Holds => 0,
        };
        ensure!(
            sold == expected,
            "{sold} units are sold instead of {expected}"
        );
        Ok(())
    }
}
