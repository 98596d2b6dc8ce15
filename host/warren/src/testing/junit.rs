//! JUnit's XML, as CI systems read it. Pure.

use std::time::Duration;

/// The cases of one file.
pub(super) struct Suite {
    pub(super) name: String,
    pub(super) cases: Vec<Entry>,
}

/// One case.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) took: Duration,
    /// What was found, a line each; empty: it has passed.
    pub(super) findings: Vec<String>,
    /// What the worker wrote.
    pub(super) log: String,
}

/// The document.
pub(super) fn document(suites: &[Suite]) -> String {
    let all = || suites.iter().flat_map(|suite| &suite.cases);
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    xml.push_str(&format!("<testsuites name=\"warren\" {}>\n", counts(all())));
    for suite in suites {
        let name = escaped(&suite.name);
        let counts = counts(suite.cases.iter());
        xml.push_str(&format!(
            "  <testsuite name=\"{name}\" errors=\"0\" skipped=\"0\" {counts}>\n"
        ));
        for case in &suite.cases {
            xml.push_str(&entry(&suite.name, case));
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn counts<'a>(cases: impl Iterator<Item = &'a Entry> + Clone) -> String {
    let n_failed = cases
        .clone()
        .filter(|case| !case.findings.is_empty())
        .count();
    let took: Duration = cases.clone().map(|case| case.took).sum();
    let n_cases = cases.count();
    format!(
        "tests=\"{n_cases}\" failures=\"{n_failed}\" time=\"{:.6}\"",
        took.as_secs_f64()
    )
}

fn entry(suite: &str, case: &Entry) -> String {
    let Entry {
        name,
        took,
        findings,
        log,
    } = case;
    let head = format!(
        "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.6}\"",
        escaped(suite),
        escaped(name),
        took.as_secs_f64()
    );
    let Some(first) = findings.first() else {
        return format!("{head}/>\n");
    };
    let mut xml = format!("{head}>\n      <failure message=\"{}\">", escaped(first));
    xml.push_str(&escaped(&findings.join("\n")));
    xml.push_str("</failure>\n");
    if !log.is_empty() {
        xml.push_str(&format!(
            "      <system-out>{}</system-out>\n",
            escaped(log)
        ));
    }
    xml.push_str("    </testcase>\n");
    xml
}

/// A text as XML 1.0 can hold it, within quotes and without.
fn escaped(text: &str) -> String {
    let mut xml = String::new();
    for c in text.chars() {
        match c {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            '\n' | '\t' => xml.push(c),
            // XML has no form for these.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => xml.push('\u{fffd}'),
            c => xml.push(c),
        }
    }
    xml
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_counts_and_names_every_case() {
        let case = |name: &str, findings: &[&str]| Entry {
            name: name.to_owned(),
            took: Duration::from_millis(1500),
            findings: findings.iter().map(|line| (*line).to_owned()).collect(),
            log: "a < b".to_owned(),
        };
        let suite = Suite {
            name: "tests/a.toml".to_owned(),
            cases: vec![
                case("good", &[]),
                case("\"bad\"", &["first & \u{1b}[1m", "second"]),
            ],
        };
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<testsuites name=\"warren\" tests=\"2\" failures=\"1\" time=\"3.000000\">
  <testsuite name=\"tests/a.toml\" errors=\"0\" skipped=\"0\" tests=\"2\" failures=\"1\" time=\"3.000000\">
    <testcase classname=\"tests/a.toml\" name=\"good\" time=\"1.500000\"/>
    <testcase classname=\"tests/a.toml\" name=\"&quot;bad&quot;\" time=\"1.500000\">
      <failure message=\"first &amp; \u{fffd}[1m\">first &amp; \u{fffd}[1m
second</failure>
      <system-out>a &lt; b</system-out>
    </testcase>
  </testsuite>
</testsuites>
";
        assert_eq!(document(&[suite]), expected);
    }
}
