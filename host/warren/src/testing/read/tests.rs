//! What is wrong with a file of cases, and how it is told.

use std::path::Path;

use warren_protocol::WorkerType;

use super::read;
use crate::config::Config;

/// The mistakes of a file of cases: line, message and remedy of each.
fn mistakes(content: &str) -> Vec<String> {
    let worker_type = WorkerType::new("WB").unwrap();
    let path = Path::new("tests/t.toml");
    let Err(mistakes) = read(path, content, &worker_type, &Config::default()) else {
        return Vec::new();
    };
    mistakes.iter().map(ToString::to_string).collect()
}

/// A case that is right but for these lines.
#[track_caller]
fn check(lines: &str, parts: &[&str]) {
    let content = format!("[[case]]\nname = \"n\"\njob.data = 1\nexpect.done = true\n{lines}\n");
    let found = mistakes(&content);
    let [mistake] = found.as_slice() else {
        panic!("{found:#?}");
    };
    for part in ["tests/t.toml:5"].iter().chain(parts) {
        assert!(mistake.contains(part), "{part:?} is not in: {mistake}");
    }
}

#[test]
fn a_case_that_is_right_has_no_mistakes() {
    assert_eq!(
        mistakes("[[case]]\nname = \"n\"\njob.data = 1\nexpect.done = true"),
        [""; 0]
    );
}

#[test]
fn an_unknown_key_is_told_with_the_one_that_was_probably_meant() {
    check(
        "cals = []",
        &[
            "unknown key `cals`",
            "did you mean `call`?",
            "known here: name",
        ],
    );
    check(
        "call = [{ to = \"WB:*\", reply = 1, delayed = \"1s\" }]",
        &["did you mean `delay`?"],
    );
    check(
        "worker.deadlin = \"1s\"",
        &["unknown key", "did you mean `deadline`?"],
    );
}

#[test]
fn a_marker_that_is_none_is_told() {
    check(
        "send = [{ to = \"WB:*\", data = \"#strng\" }]",
        &[
            "unknown marker `#strng`",
            "did you mean `#string`?",
            "`##strng`",
        ],
    );
    check(
        "send = [{ to = \"WB:*\", data = \"#regex (\" }]",
        &["regex parse error"],
    );
    check(
        "send = [{ to = \"WB:*\", data = \"#file nowhere.json\" }]",
        &["cannot read tests/nowhere.json"],
    );
    check(
        "call = [{ to = \"WB:*\", reply = \"#uuid\" }]",
        &["this value is given", "write the value itself"],
    );
}

#[test]
fn what_is_missing_or_of_another_kind_is_told_with_a_form_that_is_right() {
    check(
        "call = [{ to = \"WB:*\" }]",
        &["a call has one answer", "fails = \"timeout\""],
    );
    check(
        "call = [{ to = \"WB:*\", fails = \"time-out\" }]",
        &["unknown word", "did you mean \"timeout\"?"],
    );
    check(
        "call = [{ reply = 1 }]",
        &["there is no `to`", "to = \"WB:*\""],
    );
    check(
        "sql = \"SELECT 1\"",
        &["a table is expected, this is a text"],
    );
    check(
        "keyvalue = { before = { default = 1 } }",
        &["a table is expected, this is a number"],
    );
    check("metrics = { n = \"1\" }", &["a number is expected"]);
    check("fault = \"crsh\"", &["did you mean \"crash\"?"]);
    check("encoding = \"xml\"", &["known here: json, bson, msgpack"]);
    check("log = [1]", &["a text is expected, this is a number"]);
    check("secrets = [1]", &["a table is expected, this is a list"]);
}

#[test]
fn the_mistakes_of_a_file_are_told_together_in_its_order() {
    let found = mistakes(
        "matsch = \"exact\"\n[[case]]\njob.data = 1\n[[case]]\nname = \"n\"\nexpect.done = true\n\
         [[case]]\nname = \"n\"\njob.data = 1\nexpect = { done = true, reject = \"x\" }\n",
    );
    let expected = [
        "tests/t.toml:1:1 (key matsch)\n    unknown key `matsch`\n    -> did you mean `match`?",
        "tests/t.toml:2",
        "there is no `name`",
        "the case expects nothing",
        "tests/t.toml:4",
        "the case gives the worker nothing",
        "tests/t.toml:10",
        "one outcome is expected, here are 2",
    ];
    let all = found.join("\n");
    let mut rest = all.as_str();
    for part in expected {
        let Some(at) = rest.find(part) else {
            panic!("{part:?} is not behind the others in: {all}");
        };
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn a_file_without_cases_and_one_that_is_no_toml_are_mistakes() {
    assert!(mistakes("")[0].contains("there is no case"));
    let found = mistakes("[[case]\nname = \n");
    assert!(
        found[0].contains("tests/t.toml:1") && found[0].contains("not TOML"),
        "{found:?}"
    );
}

#[test]
fn two_cases_of_one_name_are_a_mistake() {
    let case = "[[case]]\nname = \"n\"\njob.data = 1\nexpect.done = true\n";
    let found = mistakes(&format!("{case}{case}"));
    assert!(
        found[0].contains("tests/t.toml:5") && found[0].contains("another case `n`"),
        "{found:?}"
    );
}
