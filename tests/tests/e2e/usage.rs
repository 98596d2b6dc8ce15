//! What the host is told, right and wrong, and what it says then.

use std::net::TcpListener;

use warren_tests::{Setup, Site, eventually};

use crate::has;

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_the_option() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (option, other) in [("--http", "--admin"), ("--admin", "--http")] {
        let end = Setup::new(&Site::embedded())
            .with_option(option, &address)
            .with_option(other, "127.0.0.1:0")
            .run_to_its_end()
            .await;
        assert_eq!(end.code, Some(1), "{}", end.log);
        has(&end.log, [&address, "in use", option]);
    }
}

#[tokio::test]
async fn all_mistakes_of_a_configuration_are_told_together() {
    let config = "\
        plugin = \"plugins\"\n\
        http = \"8080\"\n\
        [limits]\n\
        deadline = \"soon\"\n";
    let end = Setup::new(&Site::embedded())
        .with_config(config)
        .with_option("--admin", "nowhere")
        .with_variable("WARREN_LIMITS_MEMORY", "-1")
        .with_variable("WARREN_BROKER", "http://127.0.0.1")
        .run_to_its_end()
        .await;
    assert_eq!(end.code, Some(64), "{}", end.log);
    has(
        &end.log,
        [
            "config/warren.toml:1",
            "plugin",
            "config/warren.toml:2",
            "http",
            "config/warren.toml:4",
            "deadline",
            "--admin",
            "nowhere",
            "WARREN_LIMITS_MEMORY",
            "WARREN_BROKER",
        ],
    );
}

#[tokio::test]
async fn an_unknown_option_is_misuse() {
    let setup = Setup::new(&Site::embedded()).with_option("--brocker", "embedded");
    let end = setup.run_to_its_end().await;
    assert_eq!(end.code, Some(64), "{}", end.log);
    has(&end.log, ["--brocker", "--broker"]);
}

#[tokio::test]
async fn a_configuration_of_microservices_js_works_with_its_log_switch() {
    for (switch, wanted) in [("true", true), ("false", false)] {
        let config = format!(
            "// Settings of MicroServices.js\n\
             {{\n\
             \"broker_url\": \"amqp://127.0.0.1\", /* overridden by the environment */\n\
             \"keepalive\": 10000,\n\
             \"SystemManager_log\": true,\n\
             \"Worker_log\": {switch},\n\
             \"data_transfer_protocol\": \"JSON\"\n\
             }}\n"
        );
        let host = Setup::new(&Site::embedded())
            .with_file("config.json", config)
            .with_option("--config", "config.json")
            .with_plugins(["http_faulty"])
            .start()
            .await;
        assert_eq!(host.get("/faulty/?do=log").await.status, 200);
        // The run's lines come before the next line of the host's own.
        host.drop_in("broken.wasm", "");
        host.logged("plugin rejected", []).await;
        let logged = host.log_contains("the test asked for a line");
        assert_eq!(logged, wanted, "Worker_log = {switch}");
    }
}

#[tokio::test]
async fn the_password_of_a_broker_shows_nowhere() {
    // Bound, so that nobody else takes it, and silent: the broker never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = nobody.local_addr().unwrap().port();
    drop(nobody);
    for port in [port, closed] {
        let url = format!("amqp://warren:hunter2@127.0.0.1:{port}/movies");
        let host = Setup::new(&Site::embedded())
            .with_movies()
            .with_variable("WARREN_BROKER", &url)
            .with_option("--log", "trace")
            .start_unready()
            .await;
        eventually(
            "the host has something to say about the broker",
            async || {
                let readyz = host.admin("/readyz").await;
                assert_eq!(readyz.status, 503);
                assert!(!readyz.text().contains("hunter2"), "{}", readyz.text());
                readyz.text().contains("bus: ").then_some(())
            },
        )
        .await;
        let end = host.stop().await;
        assert_eq!(end.code, Some(0));
        assert!(!end.log.contains("hunter2"), "the password is in the log");
    }
}
