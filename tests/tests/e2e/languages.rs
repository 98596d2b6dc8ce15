//! How a run ends, in each language: the table of `guests/README.md`, row by row. A worker in each
//! language (`tests/languages`) does what a row says, and the dead letter has to show what it promises.

use std::{fs, time::Duration};

use serde_json::json;
use warren_tests::{Command, Host, Setup, Site, built, eventually, host::repository};

use crate::has;

on_both_buses! {
    each_failure_of_each_language_is_what_the_table_says
}

/// The folders in `tests/languages`, with the column of the table that is about them.
const LANGUAGES: [(&str, usize); 5] = [("rust", 2), ("js", 3), ("ts", 3), ("python", 4), ("c", 5)];

/// More attempts than a run has that breaks, so that both can be told apart. The rest makes failures quick.
const CONFIG: &str = r#"
[limits]
attempts = 4
retry_base = "10ms"
cpu = "200ms"
payload = "64KiB"
"#;
const ATTEMPTS: i64 = 4;

/// CPython is compiled beside four others.
const COMPILED: Duration = Duration::from_secs(150);

/// What the table promises of one deed.
struct Row {
    deed: String,
    /// Whether a language has it, by column.
    cells: Vec<String>,
    reasons: Vec<String>,
    n_runs: i64,
    says: String,
}

async fn each_failure_of_each_language_is_what_the_table_says(site: &Site) {
    let mut setup = Setup::new(site).with_config(CONFIG);
    for (language, _) in LANGUAGES {
        let (folder, name) = (
            format!("tests/languages/{language}"),
            format!("failing-{language}"),
        );
        let plugin = built(&folder, &name).await;
        setup = setup.with_file(&format!("plugins/{language}.wasm"), plugin);
    }
    let host = setup.start_unready().await;
    host.ready_within(COMPILED).await;
    let rows = table();
    assert!(rows.len() > 10, "the table has {} rows", rows.len());
    for (language, column) in LANGUAGES {
        let worker_type = format!("LANG-{}", language.to_uppercase());
        replies(site, &host, &worker_type).await;
        for row in rows.iter().filter(|row| row.cells[column] != "–") {
            fails(site, &host, &worker_type, row).await;
        }
        replies(site, &host, &worker_type).await;
    }
}

async fn replies(site: &Site, host: &Host, worker_type: &str) {
    let call = warren(site, host, "call").with(worker_type);
    let ran = call.with(r#"{"do":"reply"}"#).run().await.ended_with(0);
    has(&ran.text(), ["done"]);
}

async fn fails(site: &Site, host: &Host, worker_type: &str, row: &Row) {
    let (deed, id) = (&row.deed, format!("{worker_type}-{}", row.deed));
    let send = warren(site, host, "send").with(worker_type);
    let send = send.with(&json!({ "do": deed }).to_string());
    send.with("--id").with(&id).run().await.ended_with(0);

    let line = host.logged("job failed for good", [&id]).await;
    let what = format!("{worker_type} {deed}: {line}");
    // The log calls the failures of a worker that asked for another attempt by what they are.
    let reason = match line["error.type"].as_str().unwrap() {
        "error" => "max_attempts",
        other => other,
    };
    assert!(row.reasons.iter().any(|one| one == reason), "{what}");
    assert_eq!(line["job.attempt"], row.n_runs, "{what}");
    has(line["reason"].as_str().unwrap(), [&row.says]);
    if let Some(dead) = site.dead_letter(worker_type).await {
        assert_eq!(dead.id, id);
        assert_eq!(dead.reason, reason, "{what}");
        assert_eq!(dead.attempt, row.n_runs, "{what}");
        has(&dead.error, [&row.says]);
    }
    // Whatever it was, the worker takes the next one.
    let worker = eventually("the worker is there", async || {
        host.worker(worker_type).await
    });
    assert_eq!(worker.await["type"], worker_type);
}

fn warren(site: &Site, host: &Host, arguments: &str) -> Command {
    let command = Command::new(site.url(), arguments);
    match site.url() {
        Some(_) => command,
        None => command.with_variable("WARREN_ADMIN", &host.admin.to_string()),
    }
}

/// The table of `guests/README.md` that begins with this heading.
fn table() -> Vec<Row> {
    let readme = fs::read_to_string(repository().join("guests/README.md")).unwrap();
    let rows = readme
        .lines()
        .skip_while(|line| !line.starts_with("| `do` |"));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|line| {
        let cells: Vec<String> = line.split('|').map(|cell| cell.trim().to_owned()).collect();
        let words = |cell: &str| -> Vec<String> {
            let parts = cell.split('`').skip(1).step_by(2);
            parts.map(str::to_owned).collect()
        };
        Row {
            deed: words(&cells[1]).remove(0),
            reasons: words(&cells[6]),
            n_runs: match cells[7].as_str() {
                "`attempts`" => ATTEMPTS,
                number => number.parse().unwrap(),
            },
            says: cells[8].trim_matches('“').trim_end_matches('”').to_owned(),
            cells,
        }
    })
    .collect()
}
