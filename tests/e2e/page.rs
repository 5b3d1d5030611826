//! The page in a real browser, while a rehearsal runs against the real program.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};

use crate::instance::{Ended, TOKEN, free_address, program};
use crate::serving::serve;

/// The rehearsal's stock: large enough to watch it go down.
const STOCK: u64 = 3_000;

#[tokio::test]
async fn the_page_shows_the_stock_going_down() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let _instance = Ended(serve(&address, &dir.path().join("data")));
    let driver = Driver::start();
    let page = driver.browser().await;

    page.goto(&format!("http://{address}/")).await.unwrap();
    let card = Locator::Css(".card");
    page.wait()
        .at_most(Duration::from_secs(20))
        .for_element(card)
        .await
        .unwrap();
    let name = text(&page, ".card .name").await;
    assert!(name.contains("sneaker"), "the demo sale is there: {name:?}");

    let mut rehearsal = program();
    rehearsal.args(["rehearse", "--target", &format!("http://{address}")]);
    rehearsal.args(["--buyers", "6000", "--stock", &STOCK.to_string()]);
    let rehearsal = rehearsal
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut rehearsal = Ended(rehearsal);

    page.goto(&format!("http://{address}/#rehearsal-1-1"))
        .await
        .unwrap();
    page.refresh().await.unwrap();
    let mut figures: Vec<u64> = Vec::new();
    let begun = Instant::now();
    while figures.last() != Some(&0) {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the stock did not run out: {figures:?}"
        );
        if let Some(left) = units_left(&page).await
            && figures.last() != Some(&left)
        {
            figures.push(left);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        figures.len() > 2,
        "the page showed figures in between: {figures:?}"
    );
    assert!(
        figures.is_sorted_by(|a, b| a > b),
        "it only goes down: {figures:?}"
    );
    let state = text(&page, ".card .state").await.to_lowercase();
    assert!(state.contains("sold out"), "{state:?}");
    assert!(rehearsal.0.wait().unwrap().success(), "the rehearsal holds");

    page.close().await.unwrap();
}

/// An instance with one sale, shown alone on the page.
async fn page_of_sale(page: &Client, address: &str, sale: Value) {
    page.goto(&format!("http://{address}/")).await.unwrap();
    let script = "const [sale, token, done] = arguments;
        fetch('api/admin/flash-sales/wanted', { method: 'PUT', body: JSON.stringify(sale),
            headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` } })
            .then((answer) => fetch(`${answer.headers.get('location')}?wait=20`,
                { headers: { authorization: `Bearer ${token}` } }))
            .then((answer) => answer.json())
            .then((outcome) => done(outcome.status), (error) => done(String(error)))";
    let outcome = page.execute_async(script, vec![sale, TOKEN.into()]).await;
    assert_eq!(outcome.unwrap(), "done");
    page.goto(&format!("http://{address}/#wanted"))
        .await
        .unwrap();
    page.refresh().await.unwrap();
    shown(page, ".card.open .buy:enabled").await;
}

/// A sale of five units.
fn five_wanted() -> Value {
    let price = json!({ "minor": 1999, "currency": "EUR" });
    json!({ "name": "Wanted", "price": price, "stock": 5 })
}

#[tokio::test]
async fn a_refusal_leaves_the_order_before_it_on_the_page_and_prices_are_those_of_iso_4217() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let _instance = Ended(serve(&address, &dir.path().join("data")));
    let driver = Driver::start();
    let page = driver.browser().await;
    let sale = json!({
        "name": "Wanted", "price": { "minor": 12345, "currency": "HUF" }, "stock": 5,
        "limit_per_buyer": 1,
    });
    page_of_sale(&page, &address, sale).await;
    let price = text(&page, ".card .price").await;
    assert!(
        price.contains("123.45") || price.contains("123,45"),
        "{price}"
    );

    let buy = Locator::Css(".buy");
    page.find(buy).await.unwrap().click().await.unwrap();
    shown(&page, ".answer.yes").await;
    shown(&page, ".buy:enabled").await;
    page.find(buy).await.unwrap().click().await.unwrap();
    shown(&page, ".answer.no").await;
    let order = text(&page, ".answer.yes").await;
    assert!(order.contains("It is yours"), "{order}");
    // The order has the price at which it was bought.
    assert!(
        order.contains("123.45") || order.contains("123,45"),
        "{order}"
    );
    page.refresh().await.unwrap();
    shown(&page, ".answer.yes").await;
    page.close().await.unwrap();
}

#[tokio::test]
async fn an_order_whose_answer_was_lost_is_there_after_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let _instance = Ended(serve(&address, &dir.path().join("data")));
    let driver = Driver::start();
    let page = driver.browser().await;
    page_of_sale(&page, &address, five_wanted()).await;

    // The service gets every order, and the page no answer to one.
    let lose_answers = "const real = window.fetch;
        window.fetch = async (path, options) => {
            const answer = await real(path, options);
            if (options.method === 'POST') throw new TypeError('the connection was lost');
            return answer;
        }";
    page.execute(lose_answers, vec![]).await.unwrap();
    let buy = Locator::Css(".buy");
    page.find(buy).await.unwrap().click().await.unwrap();
    let begun = Instant::now();
    while text(&page, ".card dd.accepted").await != "1" {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "the order did not arrive"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    page.refresh().await.unwrap();
    shown(&page, ".answer.yes").await;
    let accepted = text(&page, ".card dd.accepted").await;
    assert_eq!(accepted, "1", "the order was placed once");
    page.close().await.unwrap();
}

#[tokio::test]
async fn a_cancellation_that_is_refused_is_named_on_the_page() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let _instance = Ended(serve(&address, &dir.path().join("data")));
    let driver = Driver::start();
    let page = driver.browser().await;
    page_of_sale(&page, &address, five_wanted()).await;

    // Each cancellation is sent twice, and the page gets the answer to the second.
    let cancel_twice = "const real = window.fetch;
        window.fetch = async (path, options) => {
            if (String(path).endsWith('/cancel')) await real(path, options);
            return real(path, options);
        }";
    page.execute(cancel_twice, vec![]).await.unwrap();
    for button in [".buy", ".answer.yes button"] {
        shown(&page, button).await;
        let button = page.find(Locator::Css(button)).await.unwrap();
        button.click().await.unwrap();
    }
    shown(&page, ".answer p:last-child").await;
    let begun = Instant::now();
    while !text(&page, ".answer")
        .await
        .contains("not held or sold any more")
    {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{}",
            text(&page, ".answer").await
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let answer = text(&page, ".answer").await;
    assert!(answer.contains("Order cancelled"), "{answer}");
    page.close().await.unwrap();
}

/// Waits until an element is on the page.
async fn shown(page: &Client, selector: &str) {
    page.wait()
        .at_most(Duration::from_secs(20))
        .for_element(Locator::Css(selector))
        .await
        .unwrap_or_else(|error| panic!("{selector}: {error}"));
}

/// The units left by the page's meter, once it shows the sale of the rehearsal.
async fn units_left(page: &Client) -> Option<u64> {
    let script = "const meter = document.querySelector('.card .bar');
        return meter?.getAttribute('aria-valuemax') == arguments[0]
            ? meter.getAttribute('aria-valuenow') : null";
    let shown = page.execute(script, vec![STOCK.into()]).await.ok()?;
    shown.as_str()?.parse().ok()
}

async fn text(page: &Client, selector: &str) -> String {
    page.find(Locator::Css(selector))
        .await
        .unwrap()
        .text()
        .await
        .unwrap()
}

/// The WebDriver process; it ends with the test.
struct Driver {
    _child: Ended,
    port: u16,
    profile: tempfile::TempDir,
}

impl Driver {
    fn start() -> Self {
        let port = free_address().rsplit(':').next().unwrap().parse().unwrap();
        let child: std::io::Result<Child> = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = child
            .expect("chromedriver is missing; on Debian: apt-get install chromium chromium-driver");
        Self {
            _child: Ended(child),
            port,
            profile: tempfile::tempdir().unwrap(),
        }
    }

    async fn browser(&self) -> Client {
        let profile = format!("--user-data-dir={}", self.profile.path().display());
        let options = json!({ "goog:chromeOptions": { "args": [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--window-size=1280,900", profile,
        ]}});
        let serde_json::Value::Object(options) = options else {
            unreachable!()
        };
        let url = format!("http://127.0.0.1:{}", self.port);
        let begun = Instant::now();
        loop {
            let mut builder =
                ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new());
            match builder.capabilities(options.clone()).connect(&url).await {
                Ok(client) => return client,
                Err(error) if begun.elapsed() > Duration::from_secs(20) => {
                    panic!("the browser does not start: {error}")
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}
