//! The page in a real browser, while a rehearsal runs against the real program.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::json;

use crate::instance::{Ended, free_address, program};
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
