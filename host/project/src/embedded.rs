//! What the library carries: templates, SDKs and the contract, as files by their paths.

/// Every file; `build.rs` makes the table.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// The files of a folder, by their paths inside it.
pub(crate) fn files(folder: &str) -> impl Iterator<Item = (&'static str, &'static [u8])> {
    let prefix = format!("{folder}/");
    FILES
        .iter()
        .filter_map(move |(path, content)| Some((path.strip_prefix(prefix.as_str())?, *content)))
}

/// One file, as text.
pub(crate) fn text(path: &str) -> Option<&'static str> {
    let (_, content) = FILES.iter().find(|(known, _)| *known == path)?;
    std::str::from_utf8(content).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Language;

    #[test]
    fn there_is_a_template_and_an_sdk_for_every_language() {
        for language in Language::ALL {
            let name = language.name();
            let template: Vec<_> = files(&format!("templates/{name}"))
                .map(|(path, _)| path)
                .collect();
            for needed in ["worker.toml", "README.md", ".gitignore"] {
                assert!(
                    template.contains(&needed),
                    "{name}: no {needed} in {template:?}"
                );
            }
            let has_tests = template.iter().any(|path| path.starts_with("tests/"));
            assert!(has_tests, "{name}: no tests in {template:?}");
            assert!(files(language.sdk()).count() > 0, "{name}: no SDK");
        }
        assert!(text("wit/worker.wit").is_some_and(|text| text.contains("world worker")));
        assert_eq!(
            files("wit")
                .filter(|(path, _)| path.contains("released"))
                .count(),
            0
        );
    }
}
