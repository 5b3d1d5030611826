//! Creates the sales of a rehearsal, and reads them and every attempt again at its end.

use anyhow::{Context, bail};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::Value;

use crate::api_types::Sale;
use crate::client::{CallError, Client};
use crate::observations::{Run, SaleObservation};

/// Creates the sales, each with its terms, and waits until shoppers see them.
///
/// Fails if one of them exists already: a rehearsal must not change another's sale, and would get
/// the answers to an earlier rehearsal's attempts.
pub async fn create_all(
    run: &Run,
    sales: &[SaleObservation],
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
            "{} already has a sale of {product}; use another --seed for a generated crowd, or an \
             instance with an empty data directory for recorded demand",
            client.target()
        );
    }
    Ok(())
}

async fn create(client: &Client, sale: &SaleObservation, terms: Value) -> anyhow::Result<()> {
    let product = &*sale.product_id;
    let position = match client.put_sale(product, &terms).await {
        Err(CallError::Refused { code, .. }) if code == "admin_disabled" => bail!(
            "{} does not allow administration; start the instance with an admin token",
            client.target()
        ),
        Err(CallError::Refused { code, .. }) if code == "unauthorized" => bail!(
            "{} does not accept this admin token; pass the instance's token as --admin-token or \
             DOORBUSTER_ADMIN_TOKEN",
            client.target()
        ),
        position => position?,
    };
    let refusal = match client.refusal(position).await {
        Err(CallError::Refused { code, detail, .. })
            if matches!(&*code, "admin_disabled" | "unauthorized") =>
        {
            bail!(
                "the outcome of a change cannot be read: {detail} The service that answers \
                 questions needs the same admin token as the one that takes orders"
            )
        }
        refusal => refusal?,
    };
    if let Some(reason) = refusal {
        bail!("the sale of {product} was not created: the instance refused it as {reason}");
    }
    let created = client.sale(product, Some(position)).await?;
    let created = created.with_context(|| {
        format!("the sale of {product} was created, but the instance does not show it")
    })?;
    let stock = created.stock;
    if stock.total != sale.stock || stock.available != sale.stock {
        let units = sale.stock;
        bail!(
            "the sale of {product} was created with {units} units, but the instance shows {stock:?}"
        );
    }
    Ok(())
}

/// Reads a sale as it is now. Fails if there is none.
pub async fn read(client: &Client, product: &str) -> anyhow::Result<Sale> {
    let sale = client.sale(product, None).await?;
    sale.with_context(|| format!("the sale of {product} has disappeared"))
}

/// Reads every sale, no older than its last command, and then every attempt again.
pub async fn read_at_end(
    run: &Run,
    sales: &mut [SaleObservation],
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
