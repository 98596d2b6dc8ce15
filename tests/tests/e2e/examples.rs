//! The examples whose workers are in mixed languages: on the embedded bus by `warren dev`, as their
//! READMEs say, on RabbitMQ as plugins of a host.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use warren_tests::{
    Command, Host, Setup, Site, built, eventually, eventually_within, host::repository,
};

use crate::{has, problem};

on_both_buses! {
    orders
    rides
}

/// Tools are installed, five workers built, and CPython compiled.
const BUILT: Duration = Duration::from_secs(400);

const ALIEN: &str = r#"{"customer":"Ripley","items":[{"sku":"POSTER-ALIEN","quantity":12},{"sku":"MUG-NOSTROMO"}]}"#;

/// A host that runs the workers of an example, each in its folder.
async fn run<const N: usize>(site: &Site, example: &str, workers: [(&str, &str); N]) -> Host {
    let folder = repository().join("examples").join(example);
    let mut setup = Setup::new(site);
    if site.url().is_none() {
        setup = setup.with_dev(&folder);
    } else {
        let config = fs::read_to_string(folder.join("warren.toml")).unwrap();
        setup = setup.with_config(&config);
        for (folder, name) in workers {
            let plugin = built(&format!("examples/{example}/{folder}"), name).await;
            setup = setup.with_file(&format!("plugins/{name}.wasm"), plugin);
        }
    }
    let host = setup.start_unready().await;
    host.ready_within(BUILT).await;
    host
}

fn warren(site: &Site, host: &Host, arguments: &str) -> Command {
    let command = Command::new(site.url(), arguments);
    match site.url() {
        Some(_) => command,
        None => command.with_variable("WARREN_ADMIN", &host.admin.to_string()),
    }
}

/// Takes something in by HTTP, and returns its id.
async fn taken_in(host: &Host, what: &str, body: &Value) -> String {
    let answer = host.post(&format!("/{what}"), body.to_string()).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["message"], format!("your {what} is being processed"));
    answer[format!("{what}Id")].as_str().unwrap().to_owned()
}

/// What is told of it once it is in this state.
async fn becomes(host: &Host, what: &str, id: &str, state: &str) -> Value {
    let limit = Duration::from_secs(30);
    let waited = format!("{what} {id} becomes {state}");
    eventually_within(limit, &waited, async || {
        let told = host.get(&format!("/{what}/{id}")).await;
        // What was taken in may not be in the book yet.
        let told = (told.status == 200).then(|| told.json())?;
        (told["state"] == state).then_some(told)
    })
    .await
}

async fn orders(site: &Site) {
    let workers = [
        ("front", "front"),
        ("book", "orders"),
        ("pricing", "pricing"),
        ("invoice", "invoice"),
        ("label", "label"),
    ];
    let host = run(site, "orders", workers).await;
    an_order_is_processed_after_its_answer(&host).await;
    an_order_that_cannot_be_priced_is_refused(&host).await;
    an_invoice_keeps_its_number(site, &host).await;
    what_is_no_order_is_told_at_once(&host).await;
}

async fn an_order_is_processed_after_its_answer(host: &Host) {
    let id = taken_in(host, "order", &serde_json::from_str(ALIEN).unwrap()).await;
    let order = becomes(host, "order", &id, "ready").await;
    // 12 × 14.90 less 5 %, and 9.50; 19 % of it.
    assert_eq!(order["netCents"], 16_986 + 950, "{order}");
    assert_eq!(order["vatCents"], 3408);
    assert_eq!(order["totalCents"], 21_344);
    assert_eq!(order["invoice"]["number"], "R000001");
    let invoice = order["invoice"]["text"].as_str().unwrap();
    has(invoice, ["for Ripley", &id, "169.86 EUR", "213.44 EUR"]);
    // Code 128: the start character of set B, and each character times its place.
    let weighted = (1..)
        .zip(id.bytes())
        .map(|(n, byte)| n * (u32::from(byte) - 32));
    assert_eq!(
        order["label"]["checksum"],
        (104 + weighted.sum::<u32>()) % 103
    );
    let svg = order["label"]["svg"].as_str().unwrap();
    has(svg, ["<svg ", "</svg>"]);
    // Three bars of each symbol, with those for start and checksum, and four of the stop.
    assert_eq!(svg.matches('M').count(), (id.len() + 2) * 3 + 4, "{svg}");
}

async fn an_order_that_cannot_be_priced_is_refused(host: &Host) {
    for (items, says) in [
        (
            json!([{"sku": "SHIP"}]),
            "item 1: there is no product `SHIP`",
        ),
        (
            json!([{"sku": "MUG-NOSTROMO", "quantity": -1}]),
            "cannot be ordered",
        ),
        (json!([]), "no items"),
        (json!(7), "`items` is number, not array"),
    ] {
        let order = json!({"customer": "Ripley", "items": items});
        let id = taken_in(host, "order", &order).await;
        let order = becomes(host, "order", &id, "refused").await;
        has(order["reason"].as_str().unwrap(), [says]);
    }
}

/// Jobs may run again, and invoices are numbered without a gap.
async fn an_invoice_keeps_its_number(site: &Site, host: &Host) {
    let number = async |id: &str| {
        let order = json!({"id": id, "lines": [], "netCents": 0, "vatCents": 0, "totalCents": 0});
        let call = warren(site, host, "call").with("INVOICE");
        let ran = call.with(&order.to_string()).run().await.ended_with(0);
        ran.json()[0]["invoice"]["number"].clone()
    };
    assert_eq!(number("one").await, "R000002");
    assert_eq!(number("one").await, "R000002");
    assert_eq!(number("two").await, "R000003");
}

async fn what_is_no_order_is_told_at_once(host: &Host) {
    has(&problem(&host.post("/order", "[").await, 400), ["line 1"]);
    problem(&host.get("/order/7").await, 404);
    problem(&host.get("/order").await, 404);
    let nobody = "/order/00000000-0000-4000-8000-000000000000";
    has(
        &problem(&host.get(nobody).await, 404),
        ["there is no order"],
    );
}

async fn rides(site: &Site) {
    let workers = [
        ("front", "front"),
        ("book", "rides"),
        ("dispatch", "dispatch"),
        ("payment", "payment"),
        ("notify", "notify"),
    ];
    let host = run(site, "rides", workers).await;
    a_refused_payment_frees_the_driver(&host).await;
    a_ride_is_paid_once_though_it_comes_twice(site, &host).await;
    a_bank_that_does_not_answer_is_asked_again(&host).await;
    a_ride_without_a_free_driver_is_told_so(&host).await;
}

fn ride(card: &str) -> Value {
    json!({
        "rider": "Ripley",
        "from": {"lat": 52.53, "lon": 13.40},
        "to": {"lat": 52.51, "lon": 13.45},
        "card": card,
    })
}

/// There are three drivers: were one not set free, the rides after this would lack one.
async fn a_refused_payment_frees_the_driver(host: &Host) {
    let id = taken_in(host, "ride", &ride("4000000000000002")).await;
    let told = becomes(host, "ride", &id, "payment refused").await;
    assert_eq!(told["driver"], "Dallas", "{told}");
    assert_eq!(told["reason"], "the bank declines the card …0002");
    assert_eq!(told["wanted"]["card"], Value::Null, "a card is told");
    hears(
        host,
        "to Ripley: Your ride is cancelled: the bank declines the card …0002.",
    )
    .await;
    hears(host, &format!("ride {id}: its driver is free again")).await;
}

/// As after a crash between the answer and its acknowledgement: the same job, with the same id.
async fn a_ride_is_paid_once_though_it_comes_twice(site: &Site, host: &Host) {
    let id = "00000000-0000-4000-8000-00000000abcd";
    let job = json!({"event": "requested", "id": id, "wanted": ride("4000000000000077")});
    for _ in 0..2 {
        let send = warren(site, host, "send")
            .with("RIDES")
            .with(&job.to_string());
        send.with("--id").with("twice").run().await.ended_with(0);
    }
    let told = becomes(host, "ride", id, "paid").await;
    assert_eq!(told["driver"], "Dallas", "{told}");
    assert_eq!(told["cents"], 1321, "{told}");
    eventually("both have come to their end", async || {
        let metrics = host.admin("/metrics").await.text();
        let line = metrics.lines().find(|line| {
            line.starts_with("warren_jobs_finished_total")
                && line.contains("\"NOTIFY\"")
                && line.contains("\"ok\"")
        })?;
        // One of the ride before.
        line.ends_with(" 3").then_some(())
    })
    .await;
    let texts = host.log().matches("Dallas is on the way").count();
    assert_eq!(texts, 1, "the rider is told once");
}

async fn a_bank_that_does_not_answer_is_asked_again(host: &Host) {
    let id = taken_in(host, "ride", &ride("4000000000000003")).await;
    let told = becomes(host, "ride", &id, "paid").await;
    assert_eq!(told["driver"], "Parker", "{told}");
    host.logged(
        "job failed and will run again",
        ["the bank does not answer"],
    )
    .await;
}

async fn a_ride_without_a_free_driver_is_told_so(host: &Host) {
    let id = taken_in(host, "ride", &ride("4000000000000077")).await;
    let told = becomes(host, "ride", &id, "paid").await;
    assert_eq!(told["driver"], "Lambert", "{told}");
    let id = taken_in(host, "ride", &ride("4000000000000077")).await;
    let told = becomes(host, "ride", &id, "no driver").await;
    assert_eq!(told["reason"], "all drivers are busy");
    hears(
        host,
        "to Ripley: There is no ride for you now: all drivers are busy.",
    )
    .await;
}

async fn hears(host: &Host, text: &str) {
    eventually(&format!("the log says {text:?}"), async || {
        host.log_contains(text).then_some(())
    })
    .await;
}
