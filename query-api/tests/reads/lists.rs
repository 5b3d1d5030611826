//! A buyer's orders and a product's intents.

use std::time::Duration;

use schemas::decision::{Event, OrderReleased, RefusalReason, ReleaseCause};
use serde_json::{Value, json};

use crate::support::{Shop, TOKEN, id, order, refused, sold};

const BUYER: [(&str, &str); 1] = [("x-buyer-id", "buyer")];

fn bearer() -> [(&'static str, String); 1] {
    [("authorization", format!("Bearer {TOKEN}"))]
}

fn offsets(list: &Value) -> Vec<i64> {
    let rows = list.as_array().unwrap();
    rows.iter()
        .map(|row| row["position"]["offset"].as_i64().unwrap())
        .collect()
}

async fn as_staff(shop: &Shop, path: &str) -> crate::support::Answer {
    let [(name, value)] = bearer();
    shop.get_with(path, &[(name, &value)]).await
}

#[tokio::test(start_paused = true)]
async fn a_buyer_sees_only_their_own_orders() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    for n in 1..=4 {
        let at = shop.ask(0, "p", id(n));
        let events = if n == 3 {
            refused(id(n), RefusalReason::SoldOut)
        } else {
            sold(id(n), at)
        };
        shop.decide(0, "p", at, events);
    }
    shop.project(0).await;
    shop.settle().await;
    let page = shop.get_with("/api/buyers/me/orders?limit=2", &BUYER).await;
    assert_eq!(offsets(&page.body["orders"]), [1, 2]);
    assert_eq!(
        page.body["next"],
        json!("303a32"),
        "0:2 in hexadecimal digits"
    );
    assert_eq!(page.headers["cache-control"], "private, no-store");
    assert_eq!(page.body["orders"][0]["order_number"], "0-1");
    assert_eq!(page.body["orders"][0].get("buyer_id"), None);
    let page = shop
        .get_with("/api/buyers/me/orders?limit=2&after=303a32", &BUYER)
        .await
        .body;
    assert_eq!(
        (offsets(&page["orders"]), &page["next"]),
        (vec![4], &json!(null))
    );
    let other = shop
        .get_with("/api/buyers/me/orders", &[("x-buyer-id", "other")])
        .await
        .body;
    assert_eq!(other, json!({"orders": [], "next": null}));
    let nobody = shop.get("/api/buyers/me/orders").await;
    assert_eq!(
        (nobody.status.as_u16(), &nobody.body["code"]),
        (400, &json!("missing_header"))
    );
}

#[tokio::test(start_paused = true)]
async fn orders_with_at_least_are_no_older_than_that_position() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    let at = shop.ask(0, "p", id(1));
    shop.decide(0, "p", at, sold(id(1), at));
    shop.settle().await;
    let path = format!("/api/buyers/me/orders?at_least=0:{at}");
    // The tail has read the decision, but the list comes from the store.
    let projecting = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        shop.project(0).await;
    };
    let (page, ()) = tokio::join!(shop.get_with(&path, &BUYER), projecting);
    assert_eq!(offsets(&page.body["orders"]), [1]);
    let late = shop
        .get_with("/api/buyers/me/orders?at_least=0:9", &BUYER)
        .await;
    assert_eq!(late.body["code"], "not_caught_up");
}

#[tokio::test(start_paused = true)]
async fn the_staff_see_the_buyer_and_the_reason_of_each_intent() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    for n in 1..=3 {
        let at = shop.ask(0, "p", id(n));
        let events = if n == 2 {
            sold(id(n), at)
        } else {
            refused(id(n), RefusalReason::SoldOut)
        };
        shop.decide(0, "p", at, events);
    }
    let at = shop.tick(0, "p");
    let expired = OrderReleased {
        order: order(id(2), schemas::ids::Offset(2)),
        cause: ReleaseCause::Expired,
    };
    shop.decide(0, "p", at, vec![Event::OrderReleased(expired)]);
    shop.project(0).await;
    shop.settle().await;
    let page = as_staff(&shop, "/api/flash-sales/p/intents?limit=2").await;
    assert_eq!(page.headers["cache-control"], "private, no-store");
    assert_eq!(
        (offsets(&page.body["intents"]), &page.body["next"]),
        (vec![1, 2], &json!("303a32"))
    );
    assert_eq!(page.body["intents"][0]["buyer_id"], "buyer");
    assert_eq!(page.body["intents"][0]["reason"], "sold_out");
    assert_eq!(page.body["intents"][1]["status"], "expired");
    let page = as_staff(&shop, "/api/flash-sales/p/intents?after=303a32")
        .await
        .body;
    assert_eq!(offsets(&page["intents"]), [3]);
    let unknown = as_staff(&shop, "/api/flash-sales/nothing/intents").await;
    assert_eq!(
        (unknown.status.as_u16(), &unknown.body["code"]),
        (404, &json!("unknown_product"))
    );
}

#[tokio::test(start_paused = true)]
async fn only_the_staff_see_intents() {
    let shop = Shop::open();
    let path = "/api/flash-sales/p/intents";
    for headers in [
        vec![],
        vec![("authorization", "Bearer wrong-token")],
        vec![("authorization", TOKEN)],
        vec![("x-buyer-id", "buyer")],
    ] {
        let answer = shop.get_with(path, &headers).await;
        assert_eq!(answer.status, 401, "{headers:?}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    let shop = Shop::without_admin();
    let answer = as_staff(&shop, path).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body["code"]),
        (404, &json!("admin_disabled"))
    );
    // Other reads need no token; this one fails only because the read side has not started.
    assert_eq!(
        shop.get("/api/flash-sales/p").await.body["code"],
        "read_model_unavailable"
    );
}
