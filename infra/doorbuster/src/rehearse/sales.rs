//! Puts a rehearsal's sales on, and reads them and every attempt once more at its end.

use anyhow::{Context, bail};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::Value;

use super::client::{CallError, Client};
use super::said::Sale;
use super::seen::{Run, SaleSeen};

/// Creates the sales, each with its terms, and waits until shoppers see them.
///
/// Fails when one is there already: a rehearsal must not meddle with another's sale, and
/// would get the answers of an earlier rehearsal's attempts.
pub async fn put_on(
    run: &Run,
    sales: &[SaleSeen],
    terms: impl Fn(usize) -> Value,
    connections: usize,
) -> anyhow::Result<()> {
    let all = || stream::iter(sales.iter().enumerate());
    all()
        .map(|(_, sale)| must_be_absent(&run.client, &sale.product_id))
        .buffer_unordered(connections)
        .try_collect::<()>()
        .await?;
    all()
        .map(|(index, sale)| create(&run.client, sale, terms(index)))
        .buffer_unordered(connections)
        .try_collect::<()>()
        .await
}

async fn must_be_absent(client: &Client, product: &str) -> anyhow::Result<()> {
    if client.sale(product, None).await?.is_some() {
        bail!(
            "{} already has a sale of {product}; rehearse a crowd with another --seed, \
             or recorded demand on an instance with an empty data directory",
            client.target()
        );
    }
    Ok(())
}

async fn create(client: &Client, sale: &SaleSeen, terms: Value) -> anyhow::Result<()> {
    let product = &*sale.product_id;
    let position = match client.put_sale(product, &terms).await {
        Err(CallError::Refused { code, .. }) if code == "admin_disabled" => bail!(
            "{} has administration switched off; start it with an admin token",
            client.target()
        ),
        Err(CallError::Refused { code, .. }) if code == "unauthorized" => bail!(
            "{} does not take this admin token; give the instance's own as --admin-token \
             or DOORBUSTER_ADMIN_TOKEN",
            client.target()
        ),
        position => position?,
    };
    let seen = client.sale(product, Some(position)).await?;
    let seen =
        seen.with_context(|| format!("the sale of {product} was put on but is not there"))?;
    if seen.stock.total != sale.stock || seen.stock.available != sale.stock {
        bail!(
            "the sale of {product} has other units than it was put on with: {:?}",
            seen.stock
        );
    }
    Ok(())
}

/// Reads a sale as it is now; it must be there.
pub async fn read(client: &Client, product: &str) -> anyhow::Result<Sale> {
    let sale = client.sale(product, None).await?;
    sale.with_context(|| format!("the sale of {product} is gone"))
}

/// Reads every sale, no older than its last record, and then every attempt once more.
pub async fn read_at_end(
    run: &Run,
    sales: &mut [SaleSeen],
    connections: usize,
) -> Result<(), CallError> {
    stream::iter(&mut *sales)
        .map(|sale| async move {
            let last = sale.last_position();
            sale.at_end = run.client.sale(&sale.product_id, last).await?;
            Ok(())
        })
        .buffer_unordered(connections)
        .try_collect::<()>()
        .await?;
    let attempts = sales.iter_mut().flat_map(|sale| &mut sale.attempts);
    stream::iter(attempts.filter(|attempt| attempt.answer.is_some()))
        .map(|attempt| async {
            attempt.at_end = run.client.answer(attempt.receipt.attempt_id).await?;
            run.progress.inc(1);
            Ok(())
        })
        .buffer_unordered(connections)
        .try_collect()
        .await
}
