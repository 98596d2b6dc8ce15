//! What to do about each thing that is not as it should be, as lines that can be run.

use warren_bus::operator::{Finding, State, Thing};
use warren_protocol::WorkerType;

/// The lines for one finding.
pub(super) fn lines(finding: &Finding, vhost: &str) -> Vec<String> {
    let vhost = quoted(vhost);
    let own = finding.worker_type.as_ref();
    let apply = match own {
        Some(worker_type) => format!("warren topology apply --type {worker_type}"),
        None => "warren topology apply".to_owned(),
    };
    match (&finding.state, &finding.thing) {
        (State::Right | State::Unseen, _) | (_, Thing::Binding { .. }) => Vec::new(),
        (State::Missing, _) => vec![apply],
        (State::Refused(_), _) => vec![format!(
            "rabbitmqctl set_permissions -p {vhost} USER '^(warren\\.v1\\.|notifications$)' \
             '^(warren\\.v1\\.|notifications$)' '^(warren\\.v1\\.|notifications$)'"
        )],
        (State::Differs(_), Thing::Exchange(name)) => vec![
            "# publishers are refused between these two".to_owned(),
            format!("rabbitmqctl eval '{}'", delete_exchange(&vhost, name)),
            apply,
        ],
        (State::Differs(_), Thing::Queue(name)) => match own {
            Some(own) if name.starts_with("warren.v1.q.") => work_queue(own, apply),
            Some(own) => vec![
                format!("warren dlq export {own} --output {own}.jsonl"),
                format!("warren dlq replay {own}"),
                format!("# when `warren dlq ls {own}` shows none in the queue"),
                format!("rabbitmqctl delete_queue -p {vhost} {name}"),
                apply,
            ],
            None => vec![
                "# stop the hosts, and go on when it is empty".to_owned(),
                format!("rabbitmqctl list_queues -p {vhost} name messages consumers"),
                format!("rabbitmqctl delete_queue -p {vhost} {name}"),
                apply,
            ],
        },
    }
}

/// The lines that show what AMQP does not.
pub(super) fn looking(vhost: &str) -> [String; 2] {
    let vhost = quoted(vhost);
    [
        format!("rabbitmqctl list_bindings -p {vhost} source_name routing_key destination_name"),
        format!("rabbitmqctl list_policies -p {vhost}"),
    ]
}

/// Its jobs are kept as dead letters while it is made anew.
fn work_queue(own: &WorkerType, apply: String) -> Vec<String> {
    vec![
        format!("# stop what serves {own}, and wait until what runs has ended"),
        format!("warren topology prune {own} --drain --yes"),
        apply,
        format!("warren dlq replay {own} --reason unrouted"),
    ]
}

/// rabbitmqctl has no command for it.
fn delete_exchange(vhost: &str, name: &str) -> String {
    let vhost = vhost.trim_matches('\'').replace(['"', '\\'], "");
    format!(
        "rabbit_exchange:delete(rabbit_misc:r(<<\"{vhost}\">>, exchange, <<\"{name}\">>), false, \
         <<\"operator\">>)."
    )
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/_-.".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_host_is_one_word_of_a_shell() {
        assert_eq!(quoted("/"), "/");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
