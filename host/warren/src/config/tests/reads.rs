//! What is read.

use super::*;

#[test]
fn without_a_file_there_are_the_documented_defaults() {
    let config = merge(None, &Sources::default(), Report::default()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.limits.deadline, Duration::from_secs(30));
    assert_eq!(config.call_timeout, Duration::from_secs(10));
    assert_eq!(
        (config.limits.retry_base, config.limits.attempts),
        (Duration::from_secs(2), 5)
    );
    assert_eq!(
        (config.limits.memory_bytes, config.limits.payload_bytes),
        (67_108_864, 8_388_608)
    );
    assert_eq!(config.http.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin.to_string(), "127.0.0.1:9091");
}

#[test]
fn every_key_is_read() {
    let config = good(
        r#"
        broker = "amqp://u:p@h/v"
        plugins = "p"
        data_dir = "/var/lib/warren"
        http = "0.0.0.0:80"
        admin = "[::1]:0"
        encoding = "MsgPack"
        call_timeout = "1m"
        shutdown_grace = "0s"
        drain_timeout = "1500ms"
        keepalive = "1h"
        log = { level = "debug,lapin=off", format = "json", system_manager = false, worker = false }
        [limits]
        memory = "1GiB"
        deadline = "25m"
        cpu = "1m"
        host_calls = 4294967295
        concurrency = 1
        attempts = 1
        retry_base = "5 s"
        retry_cap = "2m"
        breaker = 0
        payload = 1024
        sends = 0
        log = 0
        tables = 1000000
        [workers.WB]
        http_path = "/movies"
        config = { key = "value" }
        "#,
    );
    assert_eq!(urls(&config.broker), ["amqp://u:p@h/v"]);
    assert_eq!(config.plugins, PathBuf::from("p"));
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/warren"));
    assert_eq!(config.http.to_string(), "0.0.0.0:80");
    assert_eq!(config.admin.to_string(), "[::1]:0");
    assert_eq!(config.encoding, Encoding::MessagePack);
    assert_eq!(config.call_timeout, Duration::from_secs(60));
    assert_eq!(config.shutdown_grace, Duration::ZERO);
    assert_eq!(config.drain_timeout, Duration::from_millis(1500));
    assert_eq!(config.keepalive, Duration::from_secs(3600));
    assert_eq!(
        (config.log.level.as_str(), config.log.format),
        ("debug,lapin=off", LogFormat::Json)
    );
    assert!(!config.log.system_manager && !config.log.worker);
    let limits = Limits {
        memory_bytes: 1 << 30,
        deadline: Duration::from_secs(25 * 60),
        cpu: Duration::from_secs(60),
        host_calls: u32::MAX,
        concurrency: 1,
        attempts: 1,
        retry_base: Duration::from_secs(5),
        retry_cap: Duration::from_secs(120),
        breaker: 0,
        payload_bytes: 1024,
        sends: 0,
        log_bytes: 0,
        tables: 1_000_000,
        ..Limits::default()
    };
    assert_eq!(config.limits, limits);
    let expected = WorkerConfig {
        limits,
        http_path: Some("/movies".to_owned()),
        config: BTreeMap::from([("key".to_owned(), "value".to_owned())]),
        ..WorkerConfig::default()
    };
    assert_eq!(worker(&config, "WB"), expected);
}

#[test]
fn a_worker_inherits_the_limits_that_it_does_not_name() {
    // The table comes first in the file on purpose.
    let config = good("[workers.WB]\nattempts = 2\n[limits]\ndeadline = \"3s\"\nattempts = 9");
    let limits = worker(&config, "WB").limits;
    assert_eq!(
        (limits.attempts, limits.deadline),
        (2, Duration::from_secs(3))
    );
    assert_eq!(limits.memory_bytes, Limits::default().memory_bytes);
}

#[test]
fn a_worker_inherits_limits_from_the_environment_too() {
    let file = (
        "w.toml".into(),
        "[workers.WB]\n[limits]\nattempts = 9".to_owned(),
    );
    let sources = with(&[("WARREN_LIMITS_ATTEMPTS", "3")], &[]);
    let config = merge(Some(file), &sources, Report::default()).unwrap();
    assert_eq!(worker(&config, "WB").limits.attempts, 3);
}

#[test]
fn sizes_have_decimal_and_binary_units() {
    for (text, bytes) in [
        ("65536", 65_536),
        ("\"65536\"", 65_536),
        ("\"70000B\"", 70_000),
        ("\"100KB\"", 100_000),
        ("\"64 KiB\"", 65_536),
        ("\"5mb\"", 5_000_000),
        ("\"1GB\"", 1_000_000_000),
        ("\"4GiB\"", 4_294_967_296),
    ] {
        assert_eq!(
            good(&format!("limits.memory = {text}")).limits.memory_bytes,
            bytes,
            "{text}"
        );
    }
}

#[test]
fn a_cluster_is_a_list_of_brokers() {
    let config = good("broker = [\"amqp://a\", \"amqps://b\"]");
    assert_eq!(urls(&config.broker), ["amqp://a", "amqps://b"]);
    assert_eq!(urls(&good("broker = \"Embedded\"").broker), ["embedded"]);
}

#[test]
fn localhost_is_understood_without_a_name_server() {
    assert_eq!(
        good("http = \"localhost:8081\"").http.to_string(),
        "127.0.0.1:8081"
    );
}

#[test]
fn reuse_is_off_unless_it_is_asked_for() {
    let reuse = |toml: &str| worker(&good(toml), "WB").reuse;
    assert_eq!(reuse("[workers.WB]\ndeadline = \"1s\""), None);
    assert_eq!(reuse("[workers.WB]\nreuse = false"), None);
    assert_eq!(reuse("[workers.WB]\nreuse = true"), Some(Reuse::default()));
    assert_eq!(reuse("[workers.WB.reuse]"), Some(Reuse::default()));
    let expected = Reuse {
        calls: 7,
        memory_bytes: Some(20 << 20),
        age: Duration::from_secs(60),
    };
    let toml = "[workers.WB.reuse]\ncalls = 7\nmemory = \"20MiB\"\nage = \"1m\"";
    assert_eq!(reuse(toml), Some(expected));
}
