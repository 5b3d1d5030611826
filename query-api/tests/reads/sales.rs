//! The sales and their stock.

use std::time::Duration;

use schemas::decision::{Event, RefusalReason, SaleSet, StockSet};
use schemas::placement::Placement;
use serde_json::{Value, json};

use crate::support::{NOW, PARTITIONS, Shop, TOKEN, id, refused, sold, terms};

fn ids(body: &Value) -> Vec<&str> {
    let sales = body["sales"].as_array().unwrap();
    sales
        .iter()
        .map(|sale| sale["product_id"].as_str().unwrap())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn the_stock_goes_down_as_attempts_are_accepted() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    let at = shop.ask(0, "p", id(1));
    shop.decide(0, "p", at, sold(id(1), at));
    let at = shop.ask(0, "p", id(2));
    shop.decide(0, "p", at, refused(id(2), RefusalReason::OverBuyerLimit));
    shop.settle().await;
    let answer = shop.get("/api/flash-sales/p").await;
    let expected = json!({
        "server_time": "2026-11-21T08:00:00.000Z", "product_id": "p", "name": "A thing",
        "price": {"minor": 1999, "currency": "EUR", "minor_units": 2}, "state": "open",
        "stock": {"total": 5, "available": 4, "reserved": 0, "sold": 1},
        "limit_per_buyer": null, "hold_ms": null,
        "opens_at": "2026-11-21T07:59:59.000Z", "closes_at": null, "round": 1,
        "attempts": {"accepted": 1, "refused": 1, "cancelled": 0, "expired": 0},
        "version": 3, "sale_version": 1, "as_of": "2026-11-21T08:00:00.000Z",
    });
    assert_eq!(answer.body, expected);
    // Attempts and orders do not change the sale: it is at the version of its first terms.
    assert_eq!(answer.headers["etag"], "\"1\"");
    assert_eq!(
        answer.headers["cache-control"],
        "public, max-age=0, must-revalidate"
    );
    let list = shop.get("/api/flash-sales").await.body;
    let mut sale = expected;
    sale.as_object_mut().unwrap().remove("server_time");
    let expected = json!({
        "server_time": "2026-11-21T08:00:00.000Z", "total": 1, "sales": [sale], "next": null,
    });
    assert_eq!(list, expected);
}

#[tokio::test(start_paused = true)]
async fn a_price_has_the_minor_units_of_its_currency() {
    let shop = Shop::open();
    for (product, (currency, units)) in (0..).zip([
        ("HUF", 2),
        ("COP", 2),
        ("LBP", 2),
        ("IQD", 3),
        ("KWD", 3),
        ("JPY", 0),
    ]) {
        let product = format!("p{product}");
        let at = shop.tick(0, &product);
        let mut terms = terms(5);
        terms.price.currency = currency.into();
        let set = Event::SaleSet(SaleSet { terms, round: 1 });
        shop.decide(0, &product, at, vec![set]);
        shop.settle().await;
        let answer = shop.get(&format!("/api/flash-sales/{product}")).await;
        let price = json!({"minor": 1999, "currency": currency, "minor_units": units});
        assert_eq!(answer.body["price"], price);
    }
}

#[tokio::test(start_paused = true)]
async fn the_state_follows_the_servers_time() {
    let shop = Shop::open();
    let put =
        async |product: &str, change: fn(&mut schemas::command::SaleTerms), then: Vec<Event>| {
            let at = shop.tick(0, product);
            let mut terms = terms(5);
            change(&mut terms);
            let mut events = vec![Event::SaleSet(SaleSet { terms, round: 1 })];
            events.extend(then);
            shop.decide(0, product, at, events);
            shop.settle().await;
            shop.get(&format!("/api/flash-sales/{product}")).await.body["state"].clone()
        };
    let (opened, paused, closed) = (Event::SaleOpened, Event::SalePaused, Event::SaleClosed);
    assert_eq!(
        put("a", |t| t.opens_at_ms = NOW + 1, vec![]).await,
        "scheduled"
    );
    // It is due to open, although no decision has opened it yet.
    assert_eq!(put("b", |t| t.opens_at_ms = NOW, vec![]).await, "open");
    // The seller opened it early.
    assert_eq!(
        put("c", |t| t.opens_at_ms = NOW + 1, vec![opened.clone()]).await,
        "open"
    );
    assert_eq!(
        put("d", |_| {}, vec![opened.clone(), paused.clone()]).await,
        "paused"
    );
    assert_eq!(
        put("e", |t| t.closes_at_ms = Some(NOW), vec![paused]).await,
        "closed"
    );
    assert_eq!(
        put(
            "f",
            |t| t.closes_at_ms = Some(NOW + 1),
            vec![opened.clone()]
        )
        .await,
        "open"
    );
    assert_eq!(
        put("g", |_| {}, vec![opened.clone(), closed]).await,
        "closed"
    );
    assert_eq!(put("h", |t| t.stock = 0, vec![opened]).await, "sold_out");
}

#[tokio::test(start_paused = true)]
async fn sales_come_page_by_page_or_busiest_first() {
    let shop = Shop::open();
    for (partition, product) in [(0, "a"), (1, "b"), (0, "c"), (1, "d"), (0, "e")] {
        shop.put_sale(partition, product, 5);
    }
    let mut n = 0;
    for (partition, product, attempts) in [(0, "c", 3), (1, "d", 1), (0, "e", 9)] {
        for _ in 0..attempts {
            n += 1;
            let at = shop.ask(partition, product, id(n));
            shop.decide(
                partition,
                product,
                at,
                refused(id(n), RefusalReason::OverBuyerLimit),
            );
        }
    }
    let over = shop.tick(0, "e");
    shop.decide(0, "e", over, vec![Event::SaleClosed]);
    shop.settle().await;
    let page = shop.get("/api/flash-sales?limit=2").await.body;
    assert_eq!((ids(&page), &page["next"]), (vec!["a", "b"], &json!("62")));
    let page = shop.get("/api/flash-sales?limit=2&after=62").await.body;
    assert_eq!((ids(&page), &page["next"]), (vec!["c", "d"], &json!("64")));
    let page = shop.get("/api/flash-sales?limit=2&after=64").await.body;
    assert_eq!((ids(&page), &page["next"]), (vec!["e"], &json!(null)));

    let page = shop.get("/api/flash-sales?sort=busiest").await.body;
    assert_eq!(
        (ids(&page), &page["next"]),
        (vec!["c", "d", "a", "b", "e"], &json!(null))
    );
    let page = shop.get("/api/flash-sales?sort=busiest&limit=3").await.body;
    assert_eq!(
        (ids(&page), &page["total"]),
        (vec!["c", "d", "a"], &json!(5))
    );
}

#[tokio::test(start_paused = true)]
async fn a_read_with_at_least_waits_for_that_change() {
    let shop = Shop::open();
    shop.put_sale(1, "p", 5);
    shop.settle().await;
    let at = shop.tick(1, "p");
    let deciding = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        shop.decide(
            1,
            "p",
            at,
            vec![Event::StockSet(StockSet { stock: 7 }), Event::SalePaused],
        );
    };
    let path = format!("/api/flash-sales/p?at_least=1:{at}");
    let list = format!("/api/flash-sales?at_least=1:{at}");
    let (sale, sales, ()) = tokio::join!(shop.get(&path), shop.get(&list), deciding);
    assert_eq!(sale.body["state"], "paused");
    assert_eq!(sales.body["sales"][0]["state"], "paused");
}

#[tokio::test(start_paused = true)]
async fn a_product_without_a_sale_is_unknown() {
    let shop = Shop::open();
    let at = shop.ask(0, "p", id(1));
    shop.decide(0, "p", at, refused(id(1), RefusalReason::UnknownProduct));
    shop.settle().await;
    let answer = shop.get("/api/flash-sales/p").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body["code"]),
        (404, &json!("unknown_product"))
    );
    assert_eq!(shop.status(id(1)).await, "refused");
    shop.put_sale(0, "p", 5);
    shop.settle().await;
    assert_eq!(shop.get("/api/flash-sales/p").await.body["version"], 2);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_it_continues_from_the_store() {
    let shop = Shop::closed();
    shop.claim(0);
    shop.put_sale(0, "p", 5);
    shop.put_sale(0, "q", 5);
    let first = shop.ask(0, "p", id(1));
    shop.decide(0, "p", first, sold(id(1), first));
    shop.project(0).await;
    let second = shop.ask(0, "p", id(2));
    shop.decide(0, "p", second, sold(id(2), second));
    shop.ask(0, "p", id(3));
    let shop = shop.started();
    shop.settle().await;
    assert_eq!(
        shop.get("/api/flash-sales/p").await.body["stock"]["sold"],
        2
    );
    assert_eq!(
        shop.get("/api/flash-sales/q").await.body["stock"]["sold"],
        0
    );
    for (n, status) in [
        (1, "sold"),
        (2, "sold"),
        (3, "queued"),
        (4, "unknown_attempt"),
    ] {
        assert_eq!(shop.status(id(n)).await, status, "{n}");
    }
}

/// A sale that another service has just appended, and every sale after the read models were deleted, is
/// not unknown only because the tail is behind.
#[tokio::test(start_paused = true)]
async fn a_sale_is_unknown_only_at_the_end_of_the_log() {
    let shop = Shop::open();
    shop.settle().await;
    let partition = Placement::new(PARTITIONS)
        .partition_of(&"p".parse().unwrap())
        .0;
    let get = || shop.get("/api/flash-sales/p");
    assert_eq!(get().await.body["code"], "unknown_product");
    let put = shop.tick(partition, "p");
    let answer = get().await;
    assert_eq!(answer.status, 503, "it is not decided");
    assert_eq!(answer.body["code"], "not_caught_up");
    assert_eq!(answer.headers["retry-after"], "1");
    let intents = shop
        .get_with(
            "/api/flash-sales/p/intents",
            &[("authorization", &format!("Bearer {TOKEN}"))],
        )
        .await;
    assert_eq!(intents.body["code"], "not_caught_up");

    // The decision that comes meanwhile is waited for.
    let deciding = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let set = Event::SaleSet(SaleSet {
            terms: terms(5),
            round: 1,
        });
        shop.decide(partition, "p", put, vec![set]);
    };
    let (answer, ()) = tokio::join!(get(), deciding);
    assert_eq!(answer.status, 200);
}

#[tokio::test(start_paused = true)]
async fn the_order_of_the_busiest_sales_is_made_once_a_second() {
    let shop = Shop::open();
    shop.put_sale(0, "a", 5);
    shop.put_sale(0, "b", 5);
    shop.settle().await;
    let busiest = async || shop.get("/api/flash-sales?sort=busiest").await.body;
    assert_eq!(ids(&busiest().await), ["a", "b"]);
    let at = shop.ask(0, "b", id(1));
    shop.decide(0, "b", at, sold(id(1), at));
    shop.settle().await;
    let page = busiest().await;
    assert_eq!(ids(&page), ["a", "b"], "the order is that of a moment ago");
    assert_eq!(page["sales"][1]["stock"]["sold"], 1, "the rows are current");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ids(&busiest().await), ["b", "a"]);
}
