//! The rivals do the work that is measured: each sells exactly its stock, gives a repeated attempt
//! its first answer, and releases expired holds. One list of cases for every rival.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use reqwest::{Client, StatusCode};
use rivals::{Engine, Persistence, Postgres, Redis, Seller, Take, serve};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Connections to PostgreSQL.
const POOL: u32 = 16;

#[tokio::test]
async fn redis_without_persistence() -> anyhow::Result<()> {
    let place = tempfile::tempdir()?;
    let engine = Engine::redis(place.path(), Persistence::Off).await?;
    every_case(Redis::connect(engine.address()).await?).await?;
    engine.stop().await
}

#[tokio::test]
async fn redis_that_syncs_always() -> anyhow::Result<()> {
    let place = tempfile::tempdir()?;
    let engine = Engine::redis(place.path(), Persistence::Always).await?;
    every_case(Redis::connect(engine.address()).await?).await?;
    engine.kill().await?;
    let again = Engine::redis(place.path(), Persistence::Always).await?;
    everything_is_kept(Redis::connect(again.address()).await?).await?;
    again.stop().await
}

#[tokio::test]
async fn postgres_with_a_hot_row() -> anyhow::Result<()> {
    postgres(Take::Row).await
}

#[tokio::test]
async fn postgres_with_slots() -> anyhow::Result<()> {
    postgres(Take::Slots).await
}

async fn postgres(take: Take) -> anyhow::Result<()> {
    let place = tempfile::tempdir()?;
    let engine = Engine::postgres(place.path()).await?;
    every_case(Postgres::connect(engine.address(), take, POOL).await?).await?;
    engine.kill().await?;
    let again = Engine::postgres(place.path()).await?;
    everything_is_kept(Postgres::connect(again.address(), take, POOL).await?).await?;
    again.stop().await
}

async fn every_case(seller: impl Seller + 'static) -> anyhow::Result<()> {
    let shop = Shop::open(seller).await?;
    let context = |case| move || format!("in the case {case:?}");
    exactly_the_stock(&shop)
        .await
        .with_context(context("exactly the stock"))?;
    a_repeated_key(&shop)
        .await
        .with_context(context("a repeated key"))?;
    the_limit_of_a_buyer(&shop)
        .await
        .with_context(context("the limit of a buyer"))?;
    a_hold_returns(&shop)
        .await
        .with_context(context("a hold returns"))?;
    what_is_unknown(&shop)
        .await
        .with_context(context("what is unknown"))
}

/// More buyers at once than units, and not a unit too many or too few.
async fn exactly_the_stock(shop: &Shop) -> anyhow::Result<()> {
    shop.put("storm", json!({ "stock": 50, "limit_per_buyer": 1 }))
        .await?;
    let buyers: Vec<String> = (0..400).map(|number| format!("buyer-{number}")).collect();
    let orders = buyers.iter().map(|buyer| shop.order("storm", buyer, "k"));
    let attempts = try_join_all(orders).await?;
    let outcomes = try_join_all(attempts.iter().map(|id| shop.outcome(id))).await?;
    let count = |status| outcomes.iter().filter(|it| it["status"] == status).count();
    ensure!(count("sold") == 50, "{} were sold", count("sold"));
    ensure!(count("refused") == 350, "{} refused", count("refused"));
    shop.has(
        "storm",
        json!({"total": 50, "available": 0, "reserved": 0, "sold": 50}),
    )
    .await
}

/// The same attempt again, also at the same time, is one attempt with one answer.
async fn a_repeated_key(shop: &Shop) -> anyhow::Result<()> {
    shop.put("twice", json!({ "stock": 10 })).await?;
    let orders = (0..20).map(|_| shop.order("twice", "ann", "same"));
    let attempts = try_join_all(orders).await?;
    ensure!(
        attempts.iter().all(|id| *id == attempts[0]),
        "one key gave {attempts:?}"
    );
    let first = shop.outcome(&attempts[0]).await?;
    shop.order("twice", "ann", "same").await?;
    ensure!(
        shop.outcome(&attempts[0]).await? == first,
        "the answer changed"
    );
    shop.order("twice", "ann", "another").await?;
    shop.has(
        "twice",
        json!({"total": 10, "available": 8, "reserved": 0, "sold": 2}),
    )
    .await
}

async fn the_limit_of_a_buyer(shop: &Shop) -> anyhow::Result<()> {
    shop.put("few", json!({ "stock": 10, "limit_per_buyer": 2 }))
        .await?;
    let keys: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    let orders = keys.iter().map(|key| shop.order("few", "ann", key));
    let attempts = try_join_all(orders).await?;
    let outcomes = try_join_all(attempts.iter().map(|id| shop.outcome(id))).await?;
    let refused = outcomes
        .iter()
        .filter(|it| it["reason"] == "over_buyer_limit");
    ensure!(refused.count() == 8, "{outcomes:?}");
    shop.has(
        "few",
        json!({"total": 10, "available": 8, "reserved": 0, "sold": 2}),
    )
    .await
}

/// Units of an expired hold can be sold again, and no longer count for their former buyer.
async fn a_hold_returns(shop: &Shop) -> anyhow::Result<()> {
    let terms = json!({ "stock": 2, "limit_per_buyer": 1, "hold_ms": 700 });
    shop.put("held", terms).await?;
    let ann = shop.order("held", "ann", "first").await?;
    let bob = shop.order("held", "bob", "first").await?;
    let eve = shop.order("held", "eve", "first").await?;
    for (attempt, status) in [(&ann, "reserved"), (&bob, "reserved"), (&eve, "refused")] {
        let outcome = shop.outcome(attempt).await?;
        ensure!(outcome["status"] == status, "{outcome}");
    }
    shop.has(
        "held",
        json!({"total": 2, "available": 0, "reserved": 2, "sold": 0}),
    )
    .await?;
    shop.has(
        "held",
        json!({"total": 2, "available": 2, "reserved": 0, "sold": 0}),
    )
    .await?;
    let lapsed = shop.outcome(&ann).await?;
    ensure!(lapsed["status"] == "expired", "{lapsed}");
    let again = shop.order("held", "ann", "second").await?;
    let outcome = shop.outcome(&again).await?;
    ensure!(outcome["status"] == "reserved", "{outcome}");
    Ok(())
}

async fn what_is_unknown(shop: &Shop) -> anyhow::Result<()> {
    let asked = shop.ask("/api/flash-sales/nothing").await?;
    ensure!(asked.0 == StatusCode::NOT_FOUND, "{asked:?}");
    let nobody = "/api/attempts/00000000-0000-4000-8000-000000000000?wait=10";
    let asked = shop.ask(nobody).await?;
    ensure!(asked.0 == StatusCode::NOT_FOUND, "{asked:?}");
    ensure!(shop.order("nothing", "ann", "k").await.is_err());
    Ok(())
}

/// A durable rival's answers from before a kill still hold.
async fn everything_is_kept(seller: impl Seller + 'static) -> anyhow::Result<()> {
    let shop = Shop::open(seller).await?;
    shop.has(
        "storm",
        json!({"total": 50, "available": 0, "reserved": 0, "sold": 50}),
    )
    .await?;
    // The key names the attempt, so this returns the first answer.
    let attempt = shop.order("twice", "ann", "same").await?;
    let outcome = shop.outcome(&attempt).await?;
    ensure!(outcome["status"] == "sold", "{outcome}");
    shop.has(
        "twice",
        json!({"total": 10, "available": 8, "reserved": 0, "sold": 2}),
    )
    .await
}

/// The front end over a rival, and its client.
struct Shop {
    address: SocketAddr,
    client: Client,
    open: CancellationToken,
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.open.cancel();
    }
}

impl Shop {
    async fn open(seller: impl Seller + 'static) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let open = CancellationToken::new();
        tokio::spawn(serve(listener, Arc::new(seller), open.clone()));
        Ok(Self {
            address,
            client: Client::builder().no_proxy().build()?,
            open,
        })
    }

    async fn put(&self, product: &str, terms: Value) -> anyhow::Result<()> {
        let url = format!("http://{}/api/admin/flash-sales/{product}", self.address);
        let answer = self.client.put(url).json(&terms).send().await?;
        ensure!(answer.status() == StatusCode::ACCEPTED, "{answer:?}");
        Ok(())
    }

    /// The id of the attempt.
    async fn order(&self, product: &str, buyer: &str, key: &str) -> anyhow::Result<String> {
        let url = format!("http://{}/api/flash-sales/{product}/order", self.address);
        let order = self
            .client
            .post(url)
            .header("x-buyer-id", buyer)
            .header("idempotency-key", key)
            .json(&json!({ "quantity": 1 }));
        let answer = order.send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        ensure!(status == StatusCode::ACCEPTED, "{status}: {body}");
        let attempt = body["attempt_id"].as_str().context("no attempt_id")?;
        Ok(attempt.to_owned())
    }

    async fn outcome(&self, attempt: &str) -> anyhow::Result<Value> {
        let (status, body) = self
            .ask(&format!("/api/attempts/{attempt}?wait=10"))
            .await?;
        ensure!(status == StatusCode::OK, "{status}: {body}");
        Ok(body)
    }

    /// Waits until the stock has these figures.
    async fn has(&self, product: &str, stock: Value) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let (status, sale) = self.ask(&format!("/api/flash-sales/{product}")).await?;
            if status == StatusCode::OK && sale["stock"] == stock {
                return Ok(());
            }
            ensure!(began.elapsed() < Duration::from_secs(60), "{sale}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn ask(&self, path: &str) -> anyhow::Result<(StatusCode, Value)> {
        let url = format!("http://{}{path}", self.address);
        let answer = self.client.get(url).send().await?;
        Ok((answer.status(), answer.json().await?))
    }
}
