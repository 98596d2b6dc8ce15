//! `warren call` and `warren send`, on both buses: through the broker, and through the admin port of a
//! host that has the bus inside it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use warren_tests::{Command, Host, Ran, Setup, Site, eventually};

use crate::has;

const GET: &str = r#"{"method":"GET","params":{}}"#;

on_both_buses! {
    a_call_goes_through_the_trio_and_prints_the_reply
    data_come_from_an_argument_a_file_and_standard_input
    a_call_says_what_it_is_to_programs
    each_reason_for_no_reply_has_an_exit_code
    a_type_without_a_worker_is_told_from_one_that_never_had_any
    a_job_is_sent_once_for_each_line_up_to_the_first_bad_one
    what_is_asked_for_in_the_wrong_way_is_misuse
    a_route_has_several_stops
}

/// A command that finds the bus of this host.
fn warren(site: &Site, host: &Host, arguments: &str) -> Command {
    let command = Command::new(site.url(), arguments);
    match site.url() {
        Some(_) => command,
        None => command.with_variable("WARREN_ADMIN", &host.admin.to_string()),
    }
}

async fn call(site: &Site, host: &Host, to: &str, data: &Value) -> Ran {
    let call = warren(site, host, "call").with(to);
    call.with(&data.to_string()).run().await
}

async fn a_call_goes_through_the_trio_and_prints_the_reply(site: &Site) {
    let host = Setup::new(site).with_movies().start().await;
    assert_eq!(
        host.post("/movies/", r#"{"title":"Alien"}"#).await.status,
        200
    );
    let alien = json!([{"id": 1, "title": "Alien", "description": null}]);
    for to in ["WD:*", "WD", "WB"] {
        let ran = warren(site, &host, "call").with(to).with(GET).run().await;
        let ran = ran.ended_with(0);
        assert_eq!(ran.json()[0]["content"], alien, "{to}");
        assert_eq!(ran.err, "", "{to}");
    }
    // Nobody has been told of a new worker, and nothing is left to wait for.
    let workers = host.admin_json("/workers").await;
    assert_eq!(workers.as_array().unwrap().len(), 3, "{workers}");
}

async fn data_come_from_an_argument_a_file_and_standard_input(site: &Site) {
    let host = Setup::new(site).with_plugins(["faulty"]).start().await;
    // Passed on byte for byte.
    let echo = r#"{ "do":"echo", "count":12345678901234567890, "é":"\u00e9" }"#;
    let ran = warren(site, &host, "call FX").with(echo).run().await;
    assert_eq!(ran.ended_with(0).text(), format!("{echo}\n"));
    let ran = warren(site, &host, "call FX @order.json").with_file("order.json", echo);
    assert_eq!(ran.run().await.ended_with(0).text(), format!("{echo}\n"));
    let ran = warren(site, &host, "call FX -").with_input(echo);
    assert_eq!(ran.run().await.ended_with(0).text(), format!("{echo}\n"));
    // Without any, it is null, which FX cannot read.
    let ran = warren(site, &host, "call FX").run().await.ended_with(2);
    has(&ran.err, ["null"]);
}

async fn a_call_says_what_it_is_to_programs(site: &Site) {
    let host = Setup::new(site).with_plugins(["faulty"]).start().await;
    let order = r#"{"do":"context"}"#;
    let call = warren(site, &host, "call FX --json --id order-4711");
    let ran = call.with(order).run().await.ended_with(0);
    let [said] = <[Value; 1]>::try_from(ran.json()).unwrap();
    assert_eq!(
        (&said["id"], &said["outcome"]),
        (&json!("order-4711"), &json!("reply"))
    );
    assert!(said["took_ms"].is_u64(), "{said}");
    assert!(said["reply"].to_string().contains("order-4711"), "{said}");

    let order = r#"{"do":"reject","reason":"not for me"}"#;
    let call = warren(site, &host, "call FX --json").with(order);
    let ran = call.run().await.ended_with(2);
    let [said] = <[Value; 1]>::try_from(ran.json()).unwrap();
    assert_eq!(said["outcome"], "failed");
    has(said["error"].as_str().unwrap(), ["FX", "not for me"]);
}

async fn each_reason_for_no_reply_has_an_exit_code(site: &Site) {
    let host = Setup::new(site).with_plugins(["faulty"]).start().await;
    let reject = json!({"do": "reject", "reason": "the disk is full"});
    let ran = call(site, &host, "FX", &reject).await.ended_with(2);
    has(&ran.err, ["warren: ", "FX", "the disk is full"]);
    let panic = json!({"do": "panic", "reason": "the disk is on fire"});
    let ran = call(site, &host, "FX", &panic).await.ended_with(2);
    has(&ran.err, ["the disk is on fire"]);

    let sleep = warren(site, &host, "call FX --timeout 300ms").with(r#"{"do":"sleep"}"#);
    let ran = sleep.run().await.ended_with(3);
    has(&ran.err, ["FX:*", "300 ms", "--timeout", "may still run"]);
    assert!(ran.took < Duration::from_secs(5), "{:?}", ran.took);

    for command in ["call", "send"] {
        let ran = warren(site, &host, command).with("FXX").run().await;
        has(&ran.ended_with(4).err, ["FXX", "check the type"]);
        let nobody = "FX:2999999999999";
        let ran = warren(site, &host, command).with(nobody).run().await;
        has(&ran.ended_with(5).err, [nobody, "start one"]);
    }
}

async fn a_type_without_a_worker_is_told_from_one_that_never_had_any(site: &Site) {
    let host = Setup::new(site).with_plugins(["faulty"]).start().await;
    host.take_out("faulty.wasm");
    eventually("the worker has left", async || {
        host.worker("FX").await.is_none().then_some(())
    })
    .await;
    let done = json!({"do": "done"});
    let ran = call(site, &host, "FX", &done).await.ended_with(5);
    has(&ran.err, ["no worker is alive at FX:*", "start one"]);
    // A job that nobody waits for can wait.
    let send = warren(site, &host, "send FX").with(r#"{"do":"done"}"#);
    send.run().await.ended_with(0);
}

async fn a_job_is_sent_once_for_each_line_up_to_the_first_bad_one(site: &Site) {
    let host = Setup::new(site).with_movies().start().await;
    let job = |title: &str| {
        let movie = json!({ "title": title }).to_string();
        json!({"method": "POST", "params": movie}).to_string()
    };
    let one = warren(site, &host, "send WB").with(&job("Alien"));
    let ran = one.run().await.ended_with(0);
    // Its id, and nothing else.
    assert!(ran.text().starts_with('J') && ran.text().lines().count() == 1);
    assert_eq!(ran.err, "");

    let lines = [
        job("Heat"),
        String::new(),
        job("Brazil"),
        "{".to_owned(),
        job("Up"),
    ];
    let lines = lines.join("\n");
    let send = warren(site, &host, "send WB @jobs.jsonl --lines --json");
    let ran = send.with_file("jobs.jsonl", &lines).run().await;
    let ran = ran.ended_with(64);
    has(&ran.err, ["line 4", "not JSON", "2 jobs", "tail -n +4"]);
    let said = ran.json();
    let lines: Vec<_> = said
        .iter()
        .map(|line| (&line["outcome"], &line["line"]))
        .collect();
    assert_eq!(
        lines,
        [(&json!("sent"), &json!(1)), (&json!("sent"), &json!(3))]
    );

    let send = warren(site, &host, "send WB - --lines").with_input(&job("Vertigo"));
    let ran = send.run().await.ended_with(0);
    has(&ran.err, ["1 jobs sent"]);
    let titles = eventually("the jobs have run", async || {
        let movies = host.get("/movies/").await.json();
        let movies = movies.as_array()?;
        let titles = movies
            .iter()
            .map(|movie| movie["title"].as_str().unwrap().to_owned());
        let mut titles: Vec<_> = titles.collect();
        titles.sort();
        (titles.len() >= 4).then_some(titles)
    })
    .await;
    assert_eq!(titles, ["Alien", "Brazil", "Heat", "Vertigo"]);
}

async fn what_is_asked_for_in_the_wrong_way_is_misuse(site: &Site) {
    let host = Setup::new(site).with_plugins(["faulty"]).start().await;
    for (command, part) in [
        ("call", "TO"),
        ("call W:D", "not a stop"),
        ("call FX hello", "not JSON"),
        ("call FX @nowhere.json", "nowhere.json"),
        ("call FX {} --timeout soon", "such as 500ms"),
        ("send FX {} --id é", "ASCII"),
        ("send FX - --lines --id a", "--lines"),
    ] {
        let ran = warren(site, &host, command).run().await.ended_with(64);
        has(&ran.err, [part]);
    }
}

async fn a_route_has_several_stops(site: &Site) {
    let host = Setup::new(site).with_plugins(["faulty"]).start().await;
    // FX hands its data on to FX, whose answer is the reply.
    let order = json!({"do": "echo", "n": 1});
    let ran = call(site, &host, "FX,FX:*", &order).await.ended_with(0);
    assert_eq!(ran.json(), [order]);
    let metrics = eventually("both runs are counted", async || {
        let metrics = host.admin("/metrics").await.text();
        let ran = r#"warren_jobs_finished_total{outcome="ok",worker="FX"} 2"#;
        metrics.contains(ran).then_some(metrics)
    });
    metrics.await;
}

/// Asks the admin port in the very words.
async fn ask(host: &Host, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(host.admin).await.unwrap();
    let length = body.len();
    let request = format!("{head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_admin_port_takes_jobs_from_programs_on_this_machine_only() {
    let setup = Setup::new(&Site::embedded()).with_plugins(["faulty"]);
    let host = setup.start().await;
    let json = "Content-Type: application/json";
    let echo = r#"{"do":"echo"}"#;
    let asked = async |headers: &str| {
        ask(
            &host,
            &format!("POST /calls?to=FX HTTP/1.1\r\n{headers}"),
            echo,
        )
        .await
    };
    let answer = asked(&format!("Host: {}\r\n{json}", host.admin)).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with(echo),
        "{answer}"
    );
    let answer = asked(&format!("Host: localhost:1\r\n{json}")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for (headers, status) in [
        // A page of another origin, which the browser lets through without asking: a form.
        (
            "Host: 127.0.0.1\r\nContent-Type: text/plain".to_owned(),
            415,
        ),
        (
            format!("Host: 127.0.0.1\r\nOrigin: http://evil.test\r\n{json}"),
            403,
        ),
        // A page whose name leads here by now.
        (format!("Host: evil.test:9091\r\n{json}"), 403),
        (format!("Host: 127.0.0.1.evil.test\r\n{json}"), 403),
    ] {
        let answer = asked(&headers).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{headers}: {answer}"
        );
    }
    let large = "x".repeat(9 << 20);
    let head = format!("POST /jobs?to=FX HTTP/1.1\r\nHost: 127.0.0.1\r\n{json}");
    let answer = ask(&host, &head, &large).await;
    assert!(
        answer.starts_with("HTTP/1.1 413"),
        "{}",
        &answer[..200.min(answer.len())]
    );
}

#[tokio::test]
async fn a_port_that_others_reach_takes_no_jobs() {
    let setup = Setup::new(&Site::embedded()).with_plugins(["faulty"]);
    let host = setup
        .with_option("--admin", "0.0.0.0:0")
        .start_unready()
        .await;
    let head = format!(
        "POST /calls?to=FX HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json",
        host.admin.port()
    );
    let mut here = host.admin;
    here.set_ip([127, 0, 0, 1].into());
    let answer = ask(&host, &head, "{}").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    has(&answer, ["other machines", "--admin"]);
}

#[tokio::test]
async fn no_host_and_no_broker_is_told_with_what_to_do() {
    let call = Command::new(None, "call WD --admin 127.0.0.1:1");
    let ran = call.run().await.ended_with(7);
    has(
        &ran.err,
        [
            "127.0.0.1:1",
            "nothing listens there",
            "warren dev",
            "--broker",
        ],
    );
}

#[tokio::test]
async fn a_host_that_ends_while_a_call_waits_is_unavailable() {
    let setup = Setup::new(&Site::embedded()).with_plugins(["faulty"]);
    let host = setup.start().await;
    let call = warren(&Site::embedded(), &host, "call FX").with(r#"{"do":"sleep"}"#);
    let waiting = tokio::spawn(call.run());
    eventually("the job runs", async || {
        let worker = host.worker("FX").await?;
        (worker["in_flight"] == 1).then_some(())
    })
    .await;
    host.kill().await;
    has(&waiting.await.unwrap().ended_with(7).err, ["ended before"]);
}
