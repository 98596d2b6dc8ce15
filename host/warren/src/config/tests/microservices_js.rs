//! Files in the format of MicroServices.js.

use super::*;

const OF_MICROSERVICES_JS: &str = r#"// The broker
{
    "broker_url": "amqp://localhost", /* and
    the rest */
    "keepalive": 12000,
    "SystemManager_log": true,
    "Worker_log": false,
    "data_transfer_protocol": "msgpack",
}
"#;

#[test]
fn a_file_of_microservices_js_works_as_it_is() {
    for name in ["config.json", "config", "config.conf"] {
        let config = read_file(name, OF_MICROSERVICES_JS).unwrap();
        assert_eq!(urls(&config.broker), ["amqp://localhost"]);
        assert_eq!(config.keepalive, Duration::from_secs(12));
        assert!(config.log.system_manager && !config.log.worker);
        assert_eq!(config.encoding, Encoding::MessagePack);
        let rest = Config::default();
        assert_eq!((config.limits, config.http), (rest.limits, rest.http));
        assert_eq!(config.source, Source::File(name.into()));
    }
}

#[test]
fn a_file_without_a_keepalive_wants_none() {
    for json in ["{}", "{\"keepalive\": 0}"] {
        assert_eq!(read_file("c.json", json).unwrap().keepalive, Duration::ZERO);
    }
    assert_eq!(good("").keepalive, Duration::from_secs(10));
}

#[test]
fn the_environment_counts_on_top_of_a_file_of_microservices_js() {
    let file = ("c.json".into(), OF_MICROSERVICES_JS.to_owned());
    let sources = with(&[("WARREN_LOG_WORKER", "true")], &[]);
    assert!(
        merge(Some(file), &sources, Report::default())
            .unwrap()
            .log
            .worker
    );
}

#[test]
fn protobuf_means_json_and_is_warned_of() {
    let config = read_file("c.json", "{\"data_transfer_protocol\": \"Protobuf\"}").unwrap();
    assert_eq!(config.encoding, Encoding::Json);
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].starts_with("c.json:1:28 (key data_transfer_protocol): "));
}

#[test]
fn our_keys_may_stand_in_json_too() {
    let json = r#"{"keepalive": "3s", "http": "127.0.0.1:1", "workers": {"WB": {"attempts": 2}}}"#;
    let config = read_file("c.json", json).unwrap();
    assert_eq!(
        (config.keepalive, config.http.port()),
        (Duration::from_secs(3), 1)
    );
    assert_eq!(worker(&config, "WB").limits.attempts, 2);
    assert_eq!(
        read_file("c.json", " // nothing\n").unwrap().limits,
        Limits::default()
    );
}

#[test]
fn mistakes_in_json_have_their_places() {
    let json = "{\n  \"broker_ulr\": \"amqp://u:s3cret@h\",\n  \"keepalive\": -1,\n  \"Worker_log\": \"no\",\n  \"Worker_log\": null\n}";
    assert_eq!(
        shown(read_file("c.json", json)),
        [
            "c.json:5:3 (key Worker_log): `Worker_log` is there twice",
            "c.json:2:3 (key broker_ulr): unknown key `broker_ulr`",
            "c.json:3:16 (key keepalive): `-1` is out of range",
            "c.json:4:17 (key Worker_log): true or false is expected, this is a text",
            "c.json:5:17 (key Worker_log): true or false is expected, this is null",
        ]
    );
    assert_eq!(
        shown(read_file("c.json", "[1]")),
        ["c.json:1:1: the file is not an object"]
    );
    assert_eq!(
        shown(read_file("c.json", "{\"a\": \"s3cret}")),
        ["c.json:1:7: this is not JSON: unterminated string literal"]
    );
}
