//! Workers on a PostgreSQL server: one line of the configuration, and hosts that share it.

use serde_json::json;
use warren_tests::{Command, Setup, Site, eventually, host::plugin, postgres::Database};

use crate::{jobs::send, movies};

on_both_buses! {
    the_movies_move_to_postgresql_by_one_line
}

/// The line, with a password, which nobody may see.
fn line(worker_type: &str, database: &Database) -> String {
    let url = database.url().replacen("postgres@", "postgres:s3cret@", 1);
    format!("[workers.{worker_type}]\nsql = \"{url}\"\n")
}

async fn the_movies_move_to_postgresql_by_one_line(site: &Site) {
    let database = Database::new();
    let setup = Setup::new(site).with_movies();
    let host = setup.with_config(&line("WB", &database)).start().await;
    movies::are_kept(&host).await;
    assert_eq!(database.sql("SELECT count(*) FROM movies"), "2");
    for shown in [
        host.log(),
        host.admin("/plugins").await.text(),
        host.admin("/workers").await.text(),
    ] {
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_which_database_a_worker_has_and_hides_the_password() {
    let folder = tempfile::tempdir().unwrap();
    let (file, config) = (folder.path().join("db.wasm"), folder.path().join("w.toml"));
    std::fs::write(&file, plugin("db")).unwrap();
    let url = "postgres://u:s3cret@127.0.0.1:1/movies";
    std::fs::write(&config, format!("[workers.WB]\nsql = \"{url}\"\n")).unwrap();
    let (file, config) = (file.display(), config.display());
    for arguments in [
        format!("check {file} --config {config}"),
        format!("run --check --config {config}"),
    ] {
        let ran = Command::new(None, &arguments).run().await;
        let shown = format!("{}{}", ran.text(), ran.err);
        assert!(
            shown.contains("postgres://u:***@127.0.0.1:1/movies"),
            "{shown}"
        );
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}

const ON_THIS_MACHINE: &str = "keeps its rows in a file of this machine";

mod on_the_embedded_bus {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rows_on_this_machine_are_no_news() {
        let host = Setup::new(&Site::embedded()).with_movies().start().await;
        movies::are_kept(&host).await;
        assert!(!host.log_contains(ON_THIS_MACHINE), "{}", host.log());
    }
}

/// Named like the cases on both buses, so that they take turns with those.
mod on_rabbitmq {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn rows_on_this_machine_are_warned_of_once_unless_somebody_wants_them_there() {
        let site = Site::rabbitmq().await;
        let host = Setup::new(&site).with_movies().start().await;
        movies::are_kept(&host).await;
        assert_eq!(
            host.log().matches(ON_THIS_MACHINE).count(),
            1,
            "{}",
            host.log()
        );
        assert!(host.log_contains("sql = true"), "{}", host.log());
        host.kill().await;

        let setup = Setup::new(&site).with_movies();
        let host = setup
            .with_config("[workers.WB]\nsql = true\n")
            .start()
            .await;
        movies::are_kept(&host).await;
        assert!(!host.log_contains(ON_THIS_MACHINE), "{}", host.log());
    }

    const N_JOBS: u32 = 200;
    /// The workers of all hosts write to one row: they are in each other's way all the time.
    const MANY_ATTEMPTS: &str =
        "concurrency = 8\nattempts = 50\nretry_base = \"50ms\"\nretry_cap = \"200ms\"\n";

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_hosts_with_competing_workers_lose_no_update_though_one_is_killed() {
        let site = Site::rabbitmq().await;
        let database = Database::new();
        let tables = "CREATE TABLE sums (id int PRIMARY KEY, n bigint NOT NULL); \
                      CREATE TABLE jobs (job text PRIMARY KEY); INSERT INTO sums VALUES (1, 0)";
        assert_eq!(database.sql(tables), "");
        let config = format!("{}{MANY_ATTEMPTS}", line("FX", &database));
        let start = |plugins: &[&str]| {
            let setup = Setup::new(&site).with_config(&config);
            match plugins {
                [_] => setup.with_plugins(["faulty"]).start(),
                _ => setup.with_plugins(["faulty", "http_faulty"]).start(),
            }
        };
        let one = start(&["faulty", "http_faulty"]).await;
        let two = start(&["faulty"]).await;
        let sum = || database.sql("SELECT n, (SELECT count(*) FROM jobs) FROM sums");
        let done = || sum().split('|').next().and_then(|n| n.parse::<u32>().ok());
        let sends = async || {
            for _ in 0..N_JOBS / 4 {
                send(&one, "FX:*", &json!({"do": "sql-add"})).await;
            }
        };
        let kill = async {
            eventually("some jobs are done", async || {
                done().filter(|n| *n >= N_JOBS / 10)
            })
            .await;
            two.kill().await;
        };
        tokio::join!(sends(), sends(), sends(), sends(), kill);
        eventually("all jobs are done", async || {
            done().filter(|n| *n >= N_JOBS)
        })
        .await;
        assert_eq!(sum(), format!("{N_JOBS}|{N_JOBS}"));
        assert!(!one.log_contains("dead-letter"), "{}", one.log());
    }
}
