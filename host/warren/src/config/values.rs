//! From what is written to what it means: durations, sizes, addresses, folders, choices.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use tracing_subscriber::{EnvFilter, filter::LevelFilter};
use warren_protocol::{Encoding, WorkerType};
use warren_runtime::Digest;

use super::{
    Broker, BrokerUrl, LogFormat, Mistake,
    tree::{Node, Value},
};

/// What reading one value gives.
pub(super) type Read<T> = Result<T, Mistake>;

const DURATION_REMEDY: &str =
    "write a whole number and a unit in quotes: \"500ms\", \"30s\", \"5m\" or \"1h\"";
const SIZE_REMEDY: &str = "write a whole number and a unit in quotes, such as \"64MiB\" (B, KB, MB, GB, KiB, MiB, GiB), or a number of bytes";
const ADDRESS_REMEDY: &str = "write 127.0.0.1:8080 to be reached from this machine only, 0.0.0.0:8080 to be reached from everywhere";

/// A text, quoted or not.
pub(super) fn text(node: &Node) -> Read<&str> {
    match &node.value {
        Value::Text(text) | Value::Untyped(text) => Ok(text),
        other => Err(node.mistake(
            format!("a text is expected, this is {}", other.kind()),
            "write it in quotes",
        )),
    }
}

pub(super) fn truth(node: &Node) -> Read<bool> {
    const REMEDY: &str = "write true or false, without quotes";
    match &node.value {
        Value::Bool(truth) => Ok(*truth),
        Value::Untyped(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(node.mistake(format!("{} is not true or false", quoted(text)), REMEDY)),
        },
        other => Err(node.mistake(
            format!("true or false is expected, this is {}", other.kind()),
            REMEDY,
        )),
    }
}

pub(super) fn number(node: &Node, range: RangeInclusive<u32>) -> Read<u32> {
    let remedy = format!(
        "write a whole number from {} to {}",
        range.start(),
        range.end()
    );
    let number = match &node.value {
        Value::Integer(number) => *number,
        Value::Untyped(text) => text.parse().map_err(|_| {
            node.mistake(format!("{} is not a whole number", quoted(text)), &remedy)
        })?,
        other => {
            let message = format!("a whole number is expected, this is {}", other.kind());
            return Err(node.mistake(message, format!("{remedy}, without quotes")));
        }
    };
    match u32::try_from(number) {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(node.mistake(format!("{number} is out of range"), remedy)),
    }
}

/// `"2s"`; within a range, because a sum of times that are too long has no meaning.
pub(super) fn duration(node: &Node, range: RangeInclusive<Duration>) -> Read<Duration> {
    let written = match &node.value {
        Value::Text(text) | Value::Untyped(text) => text,
        Value::Integer(number) => {
            return Err(node.mistake(format!("{number} has no unit"), DURATION_REMEDY));
        }
        other => {
            let message = format!("a duration is expected, this is {}", other.kind());
            return Err(node.mistake(message, DURATION_REMEDY));
        }
    };
    let duration = parse_duration(written).ok_or_else(|| {
        node.mistake(
            format!("{} is not a duration", quoted(written)),
            DURATION_REMEDY,
        )
    })?;
    within(node, written, duration, range, shown_duration)
}

/// `10000`, in milliseconds, as MicroServices.js writes it; a text with a unit is understood, too.
pub(super) fn milliseconds(node: &Node, range: RangeInclusive<Duration>) -> Read<Duration> {
    match &node.value {
        Value::Integer(number) => {
            let written = number.to_string();
            // Less than nothing is out of any range.
            let duration = u64::try_from(*number).map_or(Duration::MAX, Duration::from_millis);
            within(node, &written, duration, range, shown_duration)
        }
        _ => duration(node, range),
    }
}

/// `"64MiB"`, or a number of bytes.
pub(super) fn size(node: &Node, range: RangeInclusive<u64>) -> Read<u64> {
    let (written, bytes) = match &node.value {
        Value::Integer(number) => (number.to_string(), u64::try_from(*number).ok()),
        Value::Text(text) | Value::Untyped(text) => (text.clone(), parse_size(text)),
        other => {
            let message = format!("a size is expected, this is {}", other.kind());
            return Err(node.mistake(message, SIZE_REMEDY));
        }
    };
    let bytes = bytes
        .ok_or_else(|| node.mistake(format!("{} is not a size", quoted(&written)), SIZE_REMEDY))?;
    within(node, &written, bytes, range, shown_size)
}

/// An address to listen on. No name is looked up: what a host listens on should not depend on a
/// name server.
pub(super) fn address(node: &Node) -> Read<SocketAddr> {
    let wrong = |message: String| node.mistake(message, ADDRESS_REMEDY);
    let written = match &node.value {
        Value::Text(text) | Value::Untyped(text) => text,
        Value::Integer(number) => return Err(wrong(format!("{number} has no address"))),
        other => {
            return Err(wrong(format!(
                "an address is expected, this is {}",
                other.kind()
            )));
        }
    };
    if let Some(port) = written
        .strip_prefix("localhost:")
        .and_then(|port| port.parse().ok())
    {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    written.parse().map_err(|_| {
        let is_port = written.trim_start_matches(':').parse::<u16>().is_ok();
        let what = match (is_port, written.parse::<IpAddr>().is_ok()) {
            (true, _) => "does not say who may connect",
            (false, true) => "has no port",
            (false, false) => "is not an IP address and a port",
        };
        wrong(format!("{} {what}", quoted(written)))
    })
}

pub(super) fn folder(node: &Node) -> Read<PathBuf> {
    let written = text(node)?;
    if written.is_empty() {
        return Err(node.mistake("the folder has no name", "write a path; `.` is this folder"));
    }
    if written.starts_with('~') {
        return Err(node.mistake(
            format!("{} would be a folder with the name `~`", quoted(written)),
            "write the whole path: only a shell knows what `~` means",
        ));
    }
    Ok(PathBuf::from(written))
}

/// A file that something is read from. The empty text is none, so that a later source can take back
/// what an earlier one said.
pub(super) fn file(node: &Node) -> Read<Option<PathBuf>> {
    let written = text(node)?;
    if written.starts_with('~') {
        return Err(node.mistake(
            format!(
                "{} would begin in a folder with the name `~`",
                quoted(written)
            ),
            "write the whole path: only a shell knows what `~` means",
        ));
    }
    // Whoever takes the key for the secret itself must not see it in a log.
    if written.contains(['\n', '\r']) {
        return Err(node.mistake(
            "more than one line is not the name of a file",
            "write the path of the file, not what is in it",
        ));
    }
    Ok(Some(PathBuf::from(written)).filter(|path| !path.as_os_str().is_empty()))
}

/// A list of worker types; `*` is all of them. In a source without types, commas separate them.
pub(super) fn worker_types(node: &Node) -> Read<Option<Vec<WorkerType>>> {
    const REMEDY: &str = "write a list of worker types, [\"WB\", \"WD\"], or \"*\" for all";
    let written: Vec<&str> = match &node.value {
        Value::Text(text) | Value::Untyped(text) if text == "*" => return Ok(None),
        Value::Untyped(text) => text.split(',').map(str::trim).collect(),
        Value::List(nodes) => nodes.iter().map(text).collect::<Read<_>>()?,
        Value::Text(text) => vec![text],
        other => {
            let message = format!("worker types are expected, this is {}", other.kind());
            return Err(node.mistake(message, REMEDY));
        }
    };
    written
        .into_iter()
        .filter(|text| !text.is_empty())
        .map(|text| WorkerType::new(text).map_err(|error| node.mistake(error.to_string(), REMEDY)))
        .collect::<Read<_>>()
        .map(Some)
}

/// The name of a field in a job's data.
pub(super) fn field_name(node: &Node) -> Read<String> {
    let written = text(node)?;
    if written.is_empty() || written.contains('\0') {
        return Err(node.mistake(
            "this is not the name of a field",
            "write one such as \"resId\"",
        ));
    }
    Ok(written.to_owned())
}

/// The name of a file in the plugins folder.
pub(super) fn plugin_name(node: &Node) -> Read<Option<String>> {
    let written = text(node)?;
    if written.contains(['/', '\\']) || !written.ends_with(".wasm") {
        return Err(node.mistake(
            format!("{} is not the name of a plugin", quoted(written)),
            "write the name of the file without its folder: \"db.wasm\"",
        ));
    }
    Ok(Some(written.to_owned()))
}

/// The SHA-256 of a file.
pub(super) fn digest(node: &Node) -> Read<Option<Digest>> {
    let written = text(node)?;
    Digest::read(written).map(Some).ok_or_else(|| {
        node.mistake(
            format!("{} is not a SHA-256", quoted(written)),
            "write the 64 hexadecimal digits that `sha256sum` or `warren check` prints",
        )
    })
}

/// A path prefix of HTTP.
pub(super) fn http_path(node: &Node) -> Read<String> {
    let written = text(node)?;
    let refused = |c: char| c.is_whitespace() || c.is_control() || "?#".contains(c);
    if !written.starts_with('/') || written.contains(refused) {
        return Err(node.mistake(
            format!("{} is not the beginning of an HTTP path", quoted(written)),
            "write a leading slash and no query, such as \"/movies\"",
        ));
    }
    Ok(written.to_owned())
}

/// An encoding, and what the operator should know about it.
pub(super) fn encoding(node: &Node) -> Read<(Encoding, Option<&'static str>)> {
    let written = text(node)?;
    if written.eq_ignore_ascii_case("protobuf") {
        // PROTOCOL.md §2: MicroServices.js has the name and, without a word, writes JSON.
        return Ok((
            Encoding::Json,
            Some(
                "there is no protobuf on this bus: JSON is used, as MicroServices.js does; write JSON",
            ),
        ));
    }
    let encoding = Encoding::from_str(written).map_err(|_| {
        node.mistake(
            format!("{} is not an encoding", quoted(written)),
            "write json, bson or msgpack, the same on every host and peer of the bus",
        )
    })?;
    Ok((encoding, None))
}

pub(super) fn log_format(node: &Node) -> Read<LogFormat> {
    let written = text(node)?;
    match written.to_ascii_lowercase().as_str() {
        "auto" => Ok(LogFormat::Auto),
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(node.mistake(
            format!("{} is not a log format", quoted(written)),
            "write auto, text or json",
        )),
    }
}

/// A filter of `tracing`, checked more strictly than `tracing` does: it takes a misspelled level
/// for the name of a module and logs nothing else.
pub(super) fn log_level(node: &Node) -> Read<String> {
    let written = text(node)?;
    let wrong = |what: String| {
        node.mistake(
            what,
            "write error, warn, info, debug, trace or off, and further module=level after commas: \
             \"info,warren_bus=debug\"",
        )
    };
    for directive in written.split(',').map(str::trim) {
        let is_level = !directive.is_empty() && directive.parse::<LevelFilter>().is_ok();
        if !is_level && !directive.contains(['=', '[', '{', ']', '}']) {
            return Err(wrong(format!("{} is not a log level", quoted(directive))));
        }
    }
    match EnvFilter::builder().parse(written) {
        Ok(_) => Ok(written.to_owned()),
        Err(error) => Err(wrong(format!(
            "{} is not a log filter: {error}",
            quoted(written)
        ))),
    }
}

/// The brokers of one cluster: one URL or a list of them; in a source without types, commas
/// separate them. `embedded` takes back what an earlier source said.
pub(super) fn broker(node: &Node) -> Result<Broker, Vec<Mistake>> {
    let texts: Vec<Read<&str>> = match &node.value {
        Value::Text(text) if !text.eq_ignore_ascii_case("embedded") => vec![Ok(text)],
        Value::Untyped(text) if !text.eq_ignore_ascii_case("embedded") => {
            split_urls(text).into_iter().map(Ok).collect()
        }
        Value::Text(_) | Value::Untyped(_) => return Ok(Broker::Embedded),
        Value::List(nodes) if !nodes.is_empty() => return brokers(nodes),
        Value::List(_) => {
            vec![Err(node.mistake(
                "the list of brokers is empty",
                "name a broker, or write \"embedded\" for the bus in this process",
            ))]
        }
        other => vec![Err(node.mistake(
            format!(
                "the address of a broker is expected, this is {}",
                other.kind()
            ),
            "write it in quotes; several ones as a list",
        ))],
    };
    collect(texts.into_iter().map(|text| broker_url(node, text?)))
}

fn brokers(nodes: &[Node]) -> Result<Broker, Vec<Mistake>> {
    collect(nodes.iter().map(|node| broker_url(node, text(node)?)))
}

fn collect(urls: impl Iterator<Item = Read<BrokerUrl>>) -> Result<Broker, Vec<Mistake>> {
    let (mut good, mut mistakes) = (Vec::new(), Vec::new());
    for url in urls {
        match url {
            Ok(url) => good.push(url),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if mistakes.is_empty() {
        Ok(Broker::RabbitMq(good))
    } else {
        Err(mistakes)
    }
}

fn broker_url(node: &Node, text: &str) -> Read<BrokerUrl> {
    text.parse::<BrokerUrl>()
        .map_err(|error| node.mistake(error.to_string(), error.remedy()))
}

/// Splits at the commas before an `amqp`: a password may hold a comma, too.
fn split_urls(text: &str) -> Vec<&str> {
    let is_between = |comma: &usize| {
        text.get(comma + 1..)
            .is_some_and(|after| after.trim_start().starts_with("amqp"))
    };
    let commas = text.match_indices(',').map(|(at, _)| at).filter(is_between);
    let mut urls = Vec::new();
    let mut start = 0;
    for end in commas.chain([text.len()]) {
        urls.push(text.get(start..end).unwrap_or_default().trim());
        start = end + 1;
    }
    urls
}

/// `10s`, `500ms`, `2m`, `1h`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let bytes: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(bytes)
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim()))
}

fn within<T: PartialOrd>(
    node: &Node,
    written: &str,
    value: T,
    range: RangeInclusive<T>,
    shown: impl Fn(&T) -> String,
) -> Read<T> {
    if range.contains(&value) {
        return Ok(value);
    }
    let message = format!("{} is out of range", quoted(written));
    let remedy = format!(
        "write at least {} and at most {}",
        shown(range.start()),
        shown(range.end())
    );
    Err(node.mistake(message, remedy))
}

/// As it would be written: `2s`.
pub(super) fn shown_duration(duration: &Duration) -> String {
    match duration.as_millis() {
        0 => "0s".to_owned(),
        n if n.is_multiple_of(3_600_000) => format!("{}h", n / 3_600_000),
        n if n.is_multiple_of(60_000) => format!("{}m", n / 60_000),
        n if n.is_multiple_of(1000) => format!("{}s", n / 1000),
        n => format!("{n}ms"),
    }
}

/// As it would be written: `64MiB`.
pub(super) fn shown_size(bytes: &u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fits = |(shift, _): &&(u32, &str)| *bytes > 0 && bytes.trailing_zeros() >= *shift;
    match units.iter().find(fits) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}

/// What the operator wrote, in a message: bounded, without control characters, and without what
/// follows the scheme of a URL, which may hold a password that got into the wrong place.
pub(super) fn quoted(text: &str) -> impl fmt::Display {
    const SHOWN_CHARS: usize = 60;
    if let Some((scheme, _)) = text.split_once("://") {
        return format!("`{}://***`", scheme.escape_debug());
    }
    let dots = if text.chars().nth(SHOWN_CHARS).is_some() {
        "…"
    } else {
        ""
    };
    let shown: String = text.chars().take(SHOWN_CHARS).collect();
    format!("`{}{dots}`", shown.escape_debug())
}
