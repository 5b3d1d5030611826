//! What `doorbuster serve` prints on a terminal when it is ready: what to open and what to try.

use doorbuster::demo;
use runtime::settings::Settings;

/// The text for an instance at this URL, with its operations at the other one.
pub fn text(url: &str, operations: &str, settings: &Settings) -> String {
    let product = demo::PRODUCT;
    let admin = match settings.http.admin_token {
        Some(_) => "on; send the admin token as Authorization: Bearer TOKEN",
        None => "off; set DOORBUSTER_ADMIN_TOKEN to turn it on",
    };
    let order = if settings.demo {
        format!(
            "\n\
             \x20 Order one   curl -i {url}/api/flash-sales/{product}/order \\\n\
             \x20               -H 'X-Buyer-Id: me' -H 'Content-Type: application/json' \\\n\
             \x20               -d '{{\"quantity\":1}}'\n\
             \x20 Its answer  curl '{url}/api/attempts/ATTEMPT_ID?wait=10'\n"
        )
    } else {
        String::new()
    };
    format!(
        "\nDoorbuster is ready.\n\n\
         \x20 Watch       {url}/\n\
         \x20 All sales   curl {url}/api/flash-sales\n\
         {order}\n\
         \x20 Rehearse    doorbuster rehearse      (10,000 buyers want 10 items)\n\
         \x20 The API     {url}/openapi.json\n\
         \x20 Health      {operations}/readyz\n\
         \x20 Metrics     {operations}/metrics\n\
         \x20 Admin       {admin}\n\
         \x20 Data        {}\n\n\
         Ctrl-C finishes open requests and stops.\n",
        settings.data_dir.display()
    )
}
