//! `warren test`: each thing that a case can say has one that passes and one that fails, as it is said
//! to; and what the command answers to people, programs and CI systems.

use std::{env, fs};

use warren_tests::{
    Command, Ran,
    host::{plugin_file, repository},
};

use crate::has;

/// `warren test` on something, with compiled plugins where other tests have left them.
fn test(what: &str) -> Command {
    let compiled = env::temp_dir().join("warren-tests-cases");
    let compiled = compiled.to_string_lossy();
    Command::new(None, "test --data-dir")
        .with(&compiled)
        .with(what)
}

/// `warren test` on a guest of the tests, with these cases.
fn cases(guest: &str, content: &str) -> Command {
    let plugin = plugin_file(guest);
    test(&plugin.to_string_lossy())
        .with("--cases")
        .with("cases.toml")
        .with_file("cases.toml", content)
}

/// Each case passes (`""`), or fails and says this.
async fn check(guest: &str, table: &[(&str, &str)]) {
    let content: Vec<_> = table
        .iter()
        .enumerate()
        .map(|(n, (body, _))| format!("[[case]]\nname = \"{n}\"\n{body}\n"))
        .collect();
    let ran = cases(guest, &content.concat()).with("--json").run().await;
    let must_fail = table.iter().any(|(_, expected)| !expected.is_empty());
    let ran = ran.ended_with(i32::from(must_fail));
    let lines = ran.json();
    assert_eq!(lines.len(), table.len() + 1, "{ran:?}");
    for (line, (body, expected)) in lines.iter().zip(table) {
        let findings = line["findings"].to_string();
        assert_eq!(line["passed"], expected.is_empty(), "{body}\n{findings}");
        assert!(
            findings.contains(expected),
            "{body}\n{expected:?} is not in {findings}"
        );
    }
}

#[tokio::test]
async fn every_outcome_can_be_expected() {
    check(
        "faulty",
        &[
            ("job.data.do = \"done\"\nexpect.done = true", ""),
            (
                "job.data.do = \"done\"\nexpect.forward = 1",
                "is `done`, and `forward` with 1 was expected",
            ),
            (
                "job.data = { do = \"echo\", x = 1 }\nexpect.forward = { do = \"echo\", x = \"#integer\" }",
                "",
            ),
            (
                "job.data = { do = \"echo\", x = 1 }\nexpect.forward = { do = \"echo\", x = 2 }",
                "$.x",
            ),
            (
                "job.data = { do = \"echo\", x = 1 }\nmatch = \"subset\"\nexpect.forward.do = \"echo\"",
                "",
            ),
            (
                "job.data = { do = \"route\", to = [\"WB\", \"WD:*\"], data = 1 }\n\
                 expect.route = { stops = [\"WB:*\", \"WD\"], data = 1 }",
                "",
            ),
            (
                "job.data = { do = \"route\", to = \"WB:*\", data = 1 }\n\
                 expect.route = { stops = [\"WD:*\"], data = 1 }",
                "the stops of `route`",
            ),
            (
                "job.data = { do = \"reject\", reason = \"no\" }\nexpect.reject = \"no\"\n\
                 expect.dead_letter = \"permanent\"",
                "",
            ),
            (
                "job.data = { do = \"reject\", reason = \"no\" }\nexpect.reject = \"yes\"",
                "the reason of `reject`",
            ),
            (
                "job.data = { do = \"done\" }\nexpect.done = true\nexpect.dead_letter = \"permanent\"",
                "the dead letter",
            ),
            (
                "job.data = { do = \"retry\", reason = \"later\", ms = 60000 }\n\
                 expect.retry = { reason = \"later\", after = \"1m\" }",
                "",
            ),
            (
                "job.data = { do = \"retry\", ms = 60000 }\n\
                 expect.retry = { reason = \"#string\", after = \"2m\" }",
                "the wait of `retry`",
            ),
            (
                "job.data = { do = \"retry\", n = 3, ms = 60000 }\nexpect.attempts = 3\n\
                 expect.forward.attempt = 3",
                "",
            ),
            (
                "job.data = { do = \"retry\", n = 3 }\nexpect.attempts = 2\nexpect.forward.attempt = 3",
                "is `retry`",
            ),
            (
                "job.data = { do = \"retry\", n = 2 }\nexpect.attempts = 3\nexpect.forward.attempt = 2",
                "are 2, and 3 were expected",
            ),
            (
                "job.data = { do = \"retry\", reason = \"r\" }\nworker.attempts = 2\nexpect.attempts = 2\n\
                 expect.retry = \"r\"\nexpect.dead_letter = \"max_attempts\"",
                "",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn every_end_without_a_verdict_can_be_expected() {
    check(
        "faulty",
        &[
            (
                "job.data = { do = \"panic\", reason = \"ouch\" }\n\
                 expect.fault = { kind = \"trap\", text = \"#contains ouch\" }",
                "",
            ),
            (
                "job.data = { do = \"panic\" }\nexpect.fault = \"oom\"",
                "is the fault `trap`",
            ),
            (
                "job.data = { do = \"panic\" }\nexpect.fault = { kind = \"trap\", text = \"no\" }",
                "the text of the fault",
            ),
            (
                "job.data = { do = \"panic\" }\nexpect.forward = {}",
                "the guest was",
            ),
            (
                "job.data = { do = \"loop\" }\nworker.deadline = \"50ms\"\nexpect.fault = \"timeout\"",
                "",
            ),
            (
                "job.data = { do = \"allocate\" }\nworker.memory = \"8MiB\"\nexpect.fault = \"oom\"",
                "",
            ),
            (
                "job.data = { do = \"host-calls\" }\nworker.host_calls = 100\n\
                 expect.fault = { kind = \"host_calls\", text = \"#contains 100\" }",
                "",
            ),
            (
                "job.data = { do = \"loop\" }\nworker.deadline = \"50ms\"\nexpect.done = true",
                "is the fault `timeout`",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn calls_are_answered_in_order_with_a_reply_or_an_error() {
    let call = "job.data = { do = \"call\", to = \"WX:*\", data = { q = 1 } }\n";
    let of = |rest: &str| format!("{call}{rest}");
    let failure = |name: &str| {
        of(&format!(
            "match = \"subset\"\nexpect.forward.error = \"{name}\"\n[[case.call]]\nto = \"WX\"\nfails = \"{name}\""
        ))
    };
    let table = [
        (
            of("expect.forward.reply.a = 1\n[[case.call]]\nto = \"WX:*\"\ndata.q = 1\nreply.a = 1"),
            "",
        ),
        (
            of("expect.forward.reply.a = 1\n[[case.call]]\nto = \"WX:*\"\ndata.q = 2\nreply.a = 1"),
            "the data of call 1",
        ),
        (
            of("expect.forward.reply = 1\n[[case.call]]\nto = \"WY:*\"\nreply = 1"),
            "the stops of call 1",
        ),
        (
            of("match = \"subset\"\nexpect.forward.error = \"failed\""),
            "to WX:* was not expected; its data: {\\\"q\\\":1}",
        ),
        (
            of(
                "expect.forward.reply = 1\n[[case.call]]\nto = \"WX\"\nreply = 1\n[[case.call]]\nto = \"WZ\"\nreply = 1",
            ),
            "to [\\\"WZ:*\\\"] was not made",
        ),
        (failure("timeout"), ""),
        (failure("unknown-type"), ""),
        (failure("no-live-worker"), ""),
        (failure("queue-full"), ""),
        (failure("unavailable"), ""),
        (failure("failed"), ""),
        (
            of(
                "expect.forward = { error = \"failed\", text = \"#contains it broke\" }\n\
                [[case.call]]\nto = \"WX\"\nfails = \"failed\"\nreason = \"it broke\"",
            ),
            "",
        ),
        (
            of(
                "call_timeout = \"20ms\"\nmatch = \"subset\"\nexpect.forward.error = \"timeout\"\n\
                [[case.call]]\nto = \"WX\"\nreply = 1\ndelay = \"10s\"",
            ),
            "",
        ),
    ];
    let table: Vec<_> = table
        .iter()
        .map(|(body, text)| (body.as_str(), *text))
        .collect();
    check("faulty", &table).await;
}

#[tokio::test]
async fn sends_are_expected_in_order() {
    let two = "job.data = { do = \"send\", to = \"WX:*\", n = 2, data = { a = 1 } }\nexpect.done = true\n";
    let sends = |first: &str, second: &str| {
        format!(
            "{two}[[case.send]]\nto = \"WX:*\"\ndata = {first}\n[[case.send]]\nto = \"WX:*\"\ndata = {second}"
        )
    };
    let table = [
        (sends("{ a = 1, index = 0 }", "{ a = 1, index = 1 }"), ""),
        (
            sends("{ a = 1, index = 1 }", "{ a = 1, index = 0 }"),
            "the data of send 1",
        ),
        (two.to_owned(), "send 2"),
        (
            format!(
                "{two}[[case.send]]\nto = \"WX\"\n[[case.send]]\nto = \"WX\"\n[[case.send]]\nto = \"WX\""
            ),
            "to [\\\"WX:*\\\"] was not made",
        ),
        (
            "job.data = { do = \"send-then-reject\", to = \"WX:*\" }\nexpect.reject = \"#string\""
                .to_owned(),
            "",
        ),
    ];
    let table: Vec<_> = table
        .iter()
        .map(|(body, text)| (body.as_str(), *text))
        .collect();
    check("faulty", &table).await;
}

#[tokio::test]
async fn a_job_can_be_delivered_twice_and_a_host_can_end_in_the_middle() {
    check(
        "faulty",
        &[
            (
                "job.data = { do = \"send\", to = \"WX:*\", n = 2 }\nexpect.done = true\nfault = \"duplicate\"\n\
                 [[case.send]]\nto = \"WX\"\n[[case.send]]\nto = \"WX\"",
                "",
            ),
            // The second attempt sends the same.
            (
                "job.data = { do = \"send\", to = \"WX:*\", n = 2 }\nexpect.done = true\nfault = \"crash\"\n\
                 [[case.send]]\nto = \"WX\"\n[[case.send]]\nto = \"WX\"",
                "",
            ),
            (
                "job.data.do = \"done\"\nexpect.done = true\nfault = \"crash\"",
                "the job has led to no message",
            ),
            (
                "job.data = { do = \"sql-add\" }\nexpect.forward = 5\nfault = \"duplicate\"\n\
                 sql.before = [\"CREATE TABLE jobs (job TEXT UNIQUE)\", \"CREATE TABLE sums (id, n)\", \
                 \"INSERT INTO sums VALUES (1, 5)\"]",
                "at the second delivery, the data of `forward`",
            ),
            // The id of its worker is another one each time, and so is what it leads to.
            (
                "job = { data = { do = \"context\" }, call = true }\nexpect.forward = \"#object\"\n\
                 fault = \"crash\"",
                "",
            ),
            // The first host ends in the middle of its run; the second one runs all of it.
            (
                "job.data = { do = \"call\", to = \"WX:*\", data = 1 }\nexpect.forward = { reply = 2 }\n\
                 fault.crash_at_call = 1\n[[case.call]]\nto = \"WX\"\nreply = 2",
                "",
            ),
            (
                "job.data = { do = \"call\", to = \"WX:*\", data = 1 }\nexpect.forward = { reply = 3 }\n\
                 fault.crash_at_call = 1\n[[case.call]]\nto = \"WX\"\nreply = 2",
                "after the crash, the data of `forward`",
            ),
            (
                "job.data.do = \"done\"\nexpect.done = true\nfault.crash_at_call = 1",
                "there was no call 1",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_depends_on_chance_is_found_by_a_second_delivery() {
    // REST asks with an id that it draws; here the Pilot's answer is not the point.
    let movies = "[[case]]\nname = \"n\"\nrequest.path = \"/movies/\"\nexpect.status = 200\n\
                  fault = \"duplicate\"\n[[case.call]]\nto = \"WD\"\nreply.content = []\n";
    let ran = cases("rest", movies).run().await.ended_with(64);
    has(&ran.err, ["cases.toml:5", "these faults are of jobs"]);
    check(
        "faulty",
        &[(
            "job = { data = { do = \"busy\", ms = 1 }, call = true }\nexpect.forward.turns = \"#integer\"\n\
             fault = \"duplicate\"",
            "has led to other messages than the first",
        )],
    )
    .await;
}

#[tokio::test]
async fn a_database_and_buckets_hold_what_a_case_puts_there() {
    check(
        "faulty",
        &[
            (
                "job.data = { do = \"sql-run\", statements = [\"INSERT INTO t VALUES (2)\"] }\n\
                 expect.forward = \"#array\"\nsql.before = [\"CREATE TABLE t (n INTEGER)\", \
                 \"INSERT INTO t VALUES (1)\"]\n[[case.sql.after]]\nquery = \"SELECT n FROM t ORDER BY n\"\n\
                 rows = [{ n = 1 }, { n = 2 }]",
                "",
            ),
            // Its table is not that of the case before.
            (
                "job.data.do = \"done\"\nexpect.done = true\n[[case.sql.after]]\nquery = \"SELECT n FROM t\"\n\
                 rows = []",
                "no such table: t",
            ),
            (
                "job.data.do = \"done\"\nexpect.done = true\nsql.before = [\"CREATE TABLE t (n)\", \
                 \"INSERT INTO t VALUES ('x')\"]\n[[case.sql.after]]\nquery = \"SELECT n FROM t\"\n\
                 rows = [{ n = \"y\" }]",
                "$[0].n",
            ),
            (
                "job.data.do = \"done\"\nexpect.done = true\nsql.before = [\"CREATE nothing\"]",
                "CREATE nothing: ",
            ),
        ],
    )
    .await;
    let set = "job.data.steps = [{ do = \"get\", key = \"a\" }, { do = \"set\", key = \"b\", value = \"2\" }]\n\
               expect.forward = [\"one\", \"#ignore\"]\nkeyvalue.before.default = { a = \"one\" }\n";
    let good = format!("{set}keyvalue.after.default = {{ a = \"one\", b = 2 }}");
    let bad = format!("{set}keyvalue.after.default = {{ a = \"one\" }}");
    check("keeper", &[(&good, ""), (&bad, "$.b")]).await;
}

#[tokio::test]
async fn requests_to_other_hosts_are_granted_led_and_answered() {
    let worker = "worker.outgoing_http = [\"https://api.example.com\", \"http://plain.example\"]\n";
    let get = "job.data = { do = \"fetch\", url = \"https://api.example.com/v1?x=1\" }\n";
    let answer = "[[case.http]]\nurl = \"https://api.example.com/v1?x=1\"\n\
                  answer = { status = 201, json = { a = 1 } }\n";
    let table = [
        (
            format!(
                "{worker}{get}expect.forward = {{ status = 201, type = \"application/json\", text = '{{\"a\":1}}' }}\n{answer}"
            ),
            "",
        ),
        (
            format!(
                "{worker}job.data = {{ do = \"fetch\", url = \"http://plain.example/\", body = {{ b = 2 }} }}\n\
                 match = \"subset\"\nexpect.forward.status = 200\n[[case.http]]\nmethod = \"POST\"\n\
                 url = \"http://plain.example/\"\njson = {{ b = 2 }}\n\
                 headers = {{ content-type = \"#contains json\", x-none = \"#notpresent\" }}\nanswer.body = \"ok\""
            ),
            "",
        ),
        (
            format!(
                "{worker}job.data = {{ do = \"fetch\", url = \"http://plain.example/\", body = {{ b = 2 }} }}\n\
                 expect.forward = \"#object\"\n[[case.http]]\nmethod = \"POST\"\n\
                 url = \"http://plain.example/\"\njson = {{ b = 3 }}\nanswer.body = \"ok\""
            ),
            "the body of request 1",
        ),
        (
            format!("{worker}{get}expect.forward = \"#object\""),
            "(GET https://api.example.com/v1?x=1) was not expected",
        ),
        (
            format!(
                "{worker}job.data.do = \"read\"\nexpect.forward = {{ value = \"#ignore\" }}\n{answer}"
            ),
            "was not made",
        ),
        // Granted is what the worker asks for by name, wherever it is led.
        (
            format!(
                "worker.outgoing_http = [\"https://other.example\"]\n{get}match = \"subset\"\n\
                 expect.forward.error = \"denied\""
            ),
            "",
        ),
        (
            format!(
                "{worker}{get}match = \"subset\"\nexpect.forward.error = \"unavailable\"\n[[case.http]]\n\
                 url = \"#string\"\nanswer = {{ body = \"half of this\", cut = true }}"
            ),
            "",
        ),
        (
            format!("{get}expect.not_loaded = \"#contains outgoing_http\""),
            "",
        ),
        (
            format!("{worker}{get}expect.not_loaded = \"#contains outgoing_http\""),
            "the worker is loaded, and should not be",
        ),
        (
            format!("{get}expect.done = true"),
            "the worker is not loaded",
        ),
    ];
    let table: Vec<_> = table
        .iter()
        .map(|(body, text)| (body.as_str(), *text))
        .collect();
    check("reacher", &table).await;
}

#[tokio::test]
async fn settings_secrets_logs_and_figures_are_the_cases_own() {
    let granted = "worker.outgoing_http = []\n";
    let read = |key: &str, rest: &str| {
        format!("{granted}job.data = {{ do = \"read\", key = \"{key}\" }}\n{rest}")
    };
    let table = [
        (
            read(
                "greeting",
                "worker.config.greeting = \"hi\"\nexpect.forward.value = \"hi\"",
            ),
            "",
        ),
        (read("greeting", "expect.forward.value = \"hi\""), "$.value"),
        (
            read(
                "TOKEN",
                "secrets.TOKEN = \"a secret one\"\nexpect.forward.value = \"a secret one\"",
            ),
            "",
        ),
        (
            format!(
                "{granted}job.data = {{ do = \"spill\", key = \"TOKEN\" }}\nsecrets.TOKEN = \"a secret one\"\n\
                 expect.fault = \"trap\"\nlog = [\"in the log: ***\", \"on stdout: ***\"]"
            ),
            "",
        ),
        (
            format!(
                "{granted}job.data = {{ do = \"spill\", key = \"TOKEN\" }}\nsecrets.TOKEN = \"a secret one\"\n\
                 expect.fault = \"trap\"\nlog = \"a secret one\""
            ),
            "has no line with \\\"a secret one\\\"",
        ),
    ];
    let table: Vec<_> = table
        .iter()
        .map(|(body, text)| (body.as_str(), *text))
        .collect();
    check("reacher", &table).await;
}

#[tokio::test]
async fn requests_to_the_worker_are_expected_by_status_headers_and_body() {
    check(
        "http_faulty",
        &[
            (
                "request = { method = \"POST\", path = \"/faulty/?do=echo\", json = { a = 1 }, headers = { x-a = \"b\" } }\n\
                 match = \"subset\"\nexpect = { status = 200, json.method = \"POST\" }",
                "",
            ),
            (
                "request.path = \"/faulty/?do=status&code=204\"\nexpect.status = 200",
                "is 204, and 200 was expected",
            ),
            (
                "request.path = \"/faulty/?do=log\"\nexpect = { status = 200, headers.x-none = \"y\" }",
                "the header `x-none` of the response",
            ),
            (
                "request.path = \"/faulty/?do=panic\"\nmatch = \"subset\"\n\
                 expect = { status = 500, json.detail = \"#contains the test asked for a panic\" }",
                "",
            ),
            (
                "request.path = \"/faulty/?do=echo\"\nexpect = { status = 200, body = \"x\" }",
                "the body of the response",
            ),
            (
                "request.path = \"/faulty/?do=send&to=WX:*\"\nexpect.status = 200\n\
                 [[case.send]]\nto = \"WX\"\ndata.do = \"done\"",
                "",
            ),
            (
                "request.path = \"/faulty/?do=send&to=WX:*\"\nexpect.status = 200",
                "to WX:* was not expected",
            ),
            (
                "request.path = \"/faulty/?do=sleep\"\nworker.deadline = \"50ms\"\nexpect.status = 500",
                "",
            ),
            ("request.path = \"/elsewhere/\"\nexpect.status = 404", ""),
        ],
    )
    .await;
}

/// The cases of the repository's own guests pass, all of them, and quickly.
#[tokio::test]
async fn the_cases_of_the_trio_pass() {
    let guests = repository().join("guests");
    let all = test(&guests.to_string_lossy()).with("--json");
    let ran = all.run().await.ended_with(0);
    let lines = ran.json();
    let summary = lines.last().unwrap();
    assert_eq!(summary["failed"], 0);
    assert!(summary["passed"].as_u64().unwrap() >= 25, "{summary}");
    for guest in ["rest", "pilot", "db"] {
        let folder = format!("guests/{guest}/tests/");
        let is_there = |line: &serde_json::Value| {
            line["file"]
                .as_str()
                .is_some_and(|file| file.contains(&folder))
        };
        assert!(lines.iter().any(is_there), "no case of {folder}");
    }
}

/// The example in guests/TESTING.md, for the plugin that wit/README.md writes.
#[tokio::test]
async fn the_example_of_the_reference_passes_and_each_of_its_cases_can_fail() {
    let reference = fs::read_to_string(repository().join("guests/TESTING.md")).unwrap();
    let example = reference.split("```toml\n").nth(1).unwrap();
    let example = example.split("```").next().unwrap();
    let ran = cases("readme", example).run().await.ended_with(0);
    has(&ran.text(), ["ok", "passed in", "median"]);
    let n_cases = example.matches("[[case]]").count();
    // Another reply of the Pilot, other stars, another limit: every expectation is about something.
    let other = example
        .replace(
            "reply = { content = [{ id = 1 }] }",
            "reply = { content = [] }",
        )
        .replace("stars = 9 ", "stars = 3 ");
    assert_ne!(other, example);
    let ran = cases("readme", &other)
        .with("--json")
        .run()
        .await
        .ended_with(1);
    let summary = ran.json().pop().unwrap();
    assert_eq!(summary["failed"], n_cases, "{}", ran.text());
}

fn two_cases() -> Command {
    cases(
        "faulty",
        "[[case]]\nname = \"good\"\njob.data.do = \"done\"\nexpect.done = true\n\
         [[case]]\nname = \"bad\"\njob.data = { do = \"log\" }\nexpect.forward.a = \"<&>\"\n",
    )
}

#[tokio::test]
async fn a_person_reads_the_difference_and_the_log_of_what_failed() {
    let ran = two_cases()
        .with("--color")
        .with("always")
        .run()
        .await
        .ended_with(1);
    let text = ran.text();
    has(
        &text,
        [
            "cases.toml\n",
            "\u{1b}[32mok  \u{1b}[0m good",
            "\u{1b}[31mFAIL\u{1b}[0m bad",
            "the data of `forward` is not as expected",
            "at $.a",
            "\u{1b}[31m  - \"<&>\"\u{1b}[0m",
            "\u{1b}[32m  + nothing\u{1b}[0m",
            "its log:",
            "1 passed",
            "1 failed",
        ],
    );
    let plain = two_cases().run().await.ended_with(1).text();
    assert!(!plain.contains('\u{1b}'), "{plain}");
}

#[tokio::test]
async fn a_ci_system_reads_junit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.xml");
    let name = file.to_string_lossy();
    two_cases()
        .with("--junit")
        .with(&name)
        .run()
        .await
        .ended_with(1);
    let xml = fs::read_to_string(&file).unwrap();
    has(
        &xml,
        [
            "<testsuites name=\"warren\" tests=\"2\" failures=\"1\"",
            "<testcase classname=\"cases.toml\" name=\"good\" time=\"0.",
            "<failure message=\"the data of `forward` is not as expected\">",
            "- &quot;&lt;&amp;&gt;&quot;",
            "<system-out>",
        ],
    );
}

#[tokio::test]
async fn cases_are_listed_and_chosen_by_their_names() {
    let ran = two_cases().with("--list").run().await.ended_with(0);
    assert_eq!(ran.text(), "cases.toml: good\ncases.toml: bad\n");
    let ran = two_cases()
        .with("--filter")
        .with("goo")
        .run()
        .await
        .ended_with(0);
    has(&ran.text(), ["1 passed"]);
    let ran = two_cases()
        .with("--filter")
        .with("nothing")
        .run()
        .await
        .ended_with(64);
    has(&ran.err, ["no case has `nothing`", "--list"]);
}

#[tokio::test]
async fn what_cannot_be_tested_is_misuse_with_a_remedy() {
    let mistaken = cases(
        "faulty",
        "[[case]]\nname = \"n\"\njob.dat = 1\nexpect.done = true\n\
         [[case]]\nname = \"m\"\njob.data = 1\nexpect.don = true\nworker.memry = \"1MiB\"\n",
    );
    let ran = mistaken.run().await.ended_with(64);
    has(
        &ran.err,
        [
            "the cases have these mistakes, and none was run:",
            "cases.toml:3:5 (key case.job.dat)",
            "did you mean `data`?",
            "cases.toml:8:8",
            "did you mean `done`?",
            "cases.toml:9",
            "did you mean `memory`?",
        ],
    );
    let said = async |what: &str| -> Ran { test(what).run().await.ended_with(64) };
    has(&said("nowhere").await.err, ["there is no nowhere"]);
    has(
        &said(".").await.err,
        ["has no worker with cases", "worker.toml"],
    );
    let bare = plugin_file("faulty");
    has(
        &said(&bare.to_string_lossy()).await.err,
        ["there are no cases", "--cases"],
    );
    let unbuilt = test(".").with_file("worker.toml", "name = \"greeter\"\nlang = \"rust\"\n");
    let ran = unbuilt.with("--no-build").run().await.ended_with(64);
    has(&ran.err, ["is not built", "greeter.wasm", "--no-build"]);
}

#[tokio::test]
async fn a_case_does_not_depend_on_where_it_runs_unless_a_configuration_is_named() {
    let content = "[[case]]\nname = \"n\"\njob.data = { do = \"panic\" }\nexpect.fault = \"trap\"\nexpect.attempts = 2\n";
    let config = "[limits]\nattempts = 1\n";
    // WARREN_LIMITS_ATTEMPTS does nothing here.
    let ran = cases("faulty", content)
        .with_variable("WARREN_LIMITS_ATTEMPTS", "1")
        .run()
        .await;
    ran.ended_with(0);
    let named = cases("faulty", content)
        .with_file("w.toml", config)
        .with("--config")
        .with("w.toml");
    let ran = named.run().await.ended_with(1);
    has(&ran.text(), ["are 1, and 2 were expected"]);
}

/// Its tables and keys are the work of others.
#[tokio::test]
async fn a_case_has_empty_stores_whatever_a_configuration_names() {
    let content = "[[case]]\nname = \"n\"\nsql.before = [\"CREATE TABLE t (n INTEGER)\"]\n\
                   job.data = { do = \"sql-run\", statements = [\"INSERT INTO t VALUES (2)\"] }\n\
                   expect.forward = \"#array\"\n\
                   [[case.sql.after]]\nquery = \"SELECT n FROM t\"\nrows = [{ n = 2 }]\n";
    // At neither is anybody.
    let config = "[workers.FX]\nsql = \"postgres://u@127.0.0.1:1/d\"\n\
                  keyvalue = \"redis://127.0.0.1:1/0\"\n";
    let named = cases("faulty", content)
        .with_file("w.toml", config)
        .with("--config")
        .with("w.toml");
    named.run().await.ended_with(0);
}
