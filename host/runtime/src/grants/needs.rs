//! What the imports of a plugin ask for, and whether its type has it: for whoever is to decide.

use warren_protocol::WorkerType;

use super::Grants;

/// One import of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The interface, with its version: `wasi:http/outgoing-handler@0.2.12`.
    pub import: String,
    /// What it gives to the plugin, in a few words.
    pub gives: &'static str,
    /// Whether the plugin's type has it.
    pub standing: Standing,
}

/// Whether a worker has what its plugin imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has it.
    Granted,
    /// The plugin is loaded, and each use is refused: nothing is on the list. The text says what
    /// would change that.
    Refusing(String),
    /// The plugin is not loaded. The text says what would change that.
    Missing(String),
}

/// What interfaces give. The first entry that an import begins with counts.
const GIVES: [(&str, &str); 18] = [
    (
        "warren:worker/bus",
        "sends jobs to other workers and calls them",
    ),
    ("warren:worker/sql", "a database of its own"),
    ("wasi:keyvalue/", "keys and values of its own"),
    ("warren:worker/context", "what is known of the run"),
    ("warren:worker/metrics", "figures on the host's /metrics"),
    ("warren:worker/types", "the words of the contract"),
    ("wasi:http/outgoing-handler", "HTTP requests to other hosts"),
    ("wasi:http/types", "the words of HTTP"),
    ("wasi:config/store", "its configuration and its secrets"),
    ("wasi:logging/logging", "lines in the host's log"),
    ("wasi:cli/environment", "an empty environment"),
    (
        "wasi:cli/std",
        "standard output and error, which go to the log",
    ),
    (
        "wasi:cli/",
        "what every standard library wants; nothing is behind it",
    ),
    ("wasi:clocks/", "the clock"),
    ("wasi:random/", "randomness"),
    ("wasi:io/", "streams, and waiting for them"),
    ("wasi:filesystem/", "files; there are none"),
    ("wasi:sockets/", "sockets; none can be opened"),
];

/// What each of these imports asks for, and whether a worker of this type has it.
#[must_use]
pub fn needs(imports: &[String], grants: &Grants, worker_type: &WorkerType) -> Vec<Need> {
    imports
        .iter()
        .map(|import| Need {
            import: import.clone(),
            gives: GIVES
                .iter()
                .find(|(prefix, _)| import.starts_with(prefix))
                .map_or("", |(_, gives)| gives),
            standing: standing(import, grants, worker_type),
        })
        .collect()
}

fn standing(import: &str, grants: &Grants, worker_type: &WorkerType) -> Standing {
    let interface = import.split('@').next().unwrap_or_default();
    match (interface, grants) {
        (
            "wasi:http/outgoing-handler",
            Grants {
                outgoing_http: None,
                ..
            },
        ) => Standing::Missing(format!(
            "name the hosts under [workers.{worker_type}]: outgoing_http = \
             [\"https://api.example.com\"]; where the plugin makes no requests and its toolchain \
             imports this unasked: outgoing_http = []"
        )),
        ("wasi:http/outgoing-handler", grants)
            if grants.outgoing_http.as_ref().is_some_and(Vec::is_empty) =>
        {
            Standing::Refusing(format!(
                "name the hosts in outgoing_http under [workers.{worker_type}]"
            ))
        }
        ("warren:worker/bus", grants) if grants.bus.as_ref().is_some_and(Vec::is_empty) => {
            Standing::Refusing(format!(
                "name the worker types in bus under [workers.{worker_type}]"
            ))
        }
        ("warren:worker/sql", Grants { sql: false, .. }) => Standing::Missing(format!(
            "write under [workers.{worker_type}]: sql = true; or take `sql` out of the plugin's \
             own WIT world"
        )),
        (
            "wasi:keyvalue/store" | "wasi:keyvalue/atomics" | "wasi:keyvalue/batch",
            Grants {
                keyvalue: false, ..
            },
        ) => Standing::Missing(format!(
            "write under [workers.{worker_type}]: keyvalue = true; or take `wasi:keyvalue` out of \
             the plugin's own WIT world"
        )),
        _ => Standing::Granted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 8] = [
        "warren:worker/bus@0.1.0",
        "warren:worker/sql@0.1.0",
        "wasi:keyvalue/store@0.2.0-draft2",
        "wasi:http/types@0.2.3",
        "wasi:http/outgoing-handler@0.2.3",
        "wasi:sockets/tcp@0.2.0",
        "wasi:filesystem/types@0.2.9",
        "wasi:config/store@0.2.0-rc.1",
    ];

    /// The imports that are not granted, with `!` before those that keep the plugin out.
    fn check(grants: &Grants) -> Vec<String> {
        let imports = ALL.map(str::to_owned);
        let all = needs(&imports, grants, &WorkerType::new("WB").unwrap());
        assert!(all.iter().all(|need| !need.gives.is_empty()), "{all:?}");
        all.into_iter()
            .filter_map(|need| match need.standing {
                Standing::Granted => None,
                Standing::Refusing(remedy) => {
                    assert!(remedy.contains("[workers.WB]"), "{remedy}");
                    Some(need.import)
                }
                Standing::Missing(remedy) => {
                    assert!(remedy.contains("[workers.WB]"), "{remedy}");
                    Some(format!("!{}", need.import))
                }
            })
            .collect()
    }

    #[test]
    fn by_default_only_requests_to_others_are_missing() {
        assert_eq!(
            check(&Grants::default()),
            ["!wasi:http/outgoing-handler@0.2.3"]
        );
    }

    #[test]
    fn a_list_with_an_entry_grants_and_an_empty_one_refuses_each() {
        let with = |outgoing_http| Grants {
            outgoing_http,
            ..Grants::default()
        };
        let origin = "https://a".parse().unwrap();
        assert_eq!(check(&with(Some(vec![origin]))), [""; 0]);
        assert_eq!(
            check(&with(Some(Vec::new()))),
            ["wasi:http/outgoing-handler@0.2.3"]
        );
    }

    #[test]
    fn what_the_operator_takes_away_is_missing() {
        let narrow = Grants {
            bus: Some(Vec::new()),
            sql: false,
            keyvalue: false,
            outgoing_http: Some(vec!["https://a".parse().unwrap()]),
            ..Grants::default()
        };
        assert_eq!(
            check(&narrow),
            [
                "warren:worker/bus@0.1.0",
                "!warren:worker/sql@0.1.0",
                "!wasi:keyvalue/store@0.2.0-draft2",
            ]
        );
    }
}
