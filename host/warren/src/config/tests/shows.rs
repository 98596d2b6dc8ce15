//! What is shown, and what is not.

use super::*;

#[test]
fn no_secret_shows_anywhere() {
    for toml in [
        "broker = \"amqp:/u:s3cret@h\"",
        "broker = \"amqp://u:s3cret\"",
        "broker = \"amqp://u:s3/cret@h:x\"",
        "broker = [\"amqp://u:s3cret@h:x\"]",
        "broker = \"amqp://u:s3cret@h",
        "brokr = \"amqp://u:s3cret@h\"",
        "http = \"amqp://u:s3cret@h\"",
        "log.level = \"amqp://u:s3cret@h\"",
        "[workers.WB.config]\npassword = \"s3cret",
        "[workers.WB.config]\npassword = [\"s3cret\"]",
    ] {
        let mistakes = read(toml).expect_err("this should be refused");
        for text in [mistakes.to_string(), format!("{mistakes:?}")] {
            assert!(!text.contains("s3"), "{toml} gives {text}");
        }
    }
    let config = good("broker = \"amqp://u:s3cret@h\"\nworkers.WB.config.password = \"s3cret\"");
    for text in [config.to_string(), format!("{config:?}")] {
        assert!(
            text.contains("u:***@h") && text.contains("password") && !text.contains("s3cret"),
            "{text}"
        );
    }
}

#[test]
fn a_configuration_shows_itself_as_one_that_means_the_same() {
    for toml in [
        "",
        "broker = [\"amqp://a\", \"amqps://b:1/v\"]\nkeepalive = \"1500ms\"\nlimits.memory = 70001",
        "[peers]\nexpose = [\"WB\", \"a.b\"]\nenabled = false\nrequest_field = \"request\"",
        "[workers.WB]\nbus = []\nsql = false\noutgoing_http = []\nstatement_timeout = \"250ms\"",
        "[workers.WB]\nbus = [\"WA\"]\noutgoing_http = [\"https://a\", \"http://[::1]:8080\"]\nprivate_addresses = [\"::1\", \"10.0.0.0/8\"]",
        "[workers.WB]\nkeyvalue = false\n[workers.WC]\nkeyvalue = \"rediss://u@h:1/7\"",
        "plugins = 'a\"\\b'\n[workers.\"a.b\"]\nhttp_path = \"/m\"\ndeadline = \"2m\"\nconfig.\"x y\" = \"***\"\nreuse = { calls = 3, age = \"1h\", memory = 70001 }",
        "[workers.WB]\nreuse = true",
        "[workers.WB]\nsql = \"postgresql://u@[::1]:5433/d?sslmode=disable\"",
    ] {
        let config = good(toml);
        assert_eq!(good(&config.to_string()), config, "{config}");
    }
}

#[test]
fn mistakes_are_shown_as_blocks_with_place_message_and_remedy() {
    let mistakes = read("http = 8080\n[limits]\nmemroy = 1").expect_err("this should be refused");
    assert_eq!(
        mistakes.to_string(),
        "\
the configuration has 2 mistakes:

  w.toml:1:8 (key http)
    8080 has no address
    -> write 127.0.0.1:8080 to be reached from this machine only, 0.0.0.0:8080 to be reached from everywhere

  w.toml:3:1 (key limits.memroy)
    unknown key `memroy`
    -> did you mean `memory`? known here: memory, deadline, cpu, host_calls, concurrency, attempts, retry_base, retry_cap, breaker, payload, sends, log, tables, sql_rows, statement_timeout, database_size, http_connections, http_requests, http_transfer, http_headers
"
    );
}
