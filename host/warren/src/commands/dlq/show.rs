//! `warren dlq show`.

use anyhow::bail;
use warren_bus::{
    Kind,
    operator::{DeadLetter, Operator},
};
use warren_protocol::WorkerType;

use super::super::{
    Verdict, letter, moment,
    output::{Output, clean, say},
};

/// How it is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Json,
    /// The bytes of the body.
    Raw,
}

pub(super) async fn run(
    operator: &Operator,
    id: &str,
    worker_type: Option<&WorkerType>,
    form: Form,
    output: &mut Output,
) -> anyhow::Result<Verdict> {
    let mut has_been_there = false;
    let letters = operator
        .dead_letters(None, |letter| {
            let is_meant = letter.message.id == id
                && worker_type.is_none_or(|wanted| letter.worker_type == *wanted);
            has_been_there |= is_meant;
            is_meant.then_some(letter)
        })
        .await?;
    if letters.is_empty() {
        say(&if has_been_there {
            format!("{id} is no dead letter any more: it was replayed or dropped")
        } else {
            format!(
                "no dead letter has the id {id}; `warren dlq ls TYPE` lists those that are there"
            )
        });
        return Ok(Verdict::Incomplete);
    }
    if form == Form::Raw {
        let [(_, only)] = letters.as_slice() else {
            bail!(
                "{} dead letters have the id {id}: choose one with --type",
                letters.len()
            );
        };
        output.bytes(&only.message.body)?;
        return Ok(Verdict::Done);
    }
    for (index, (_, found)) in letters.iter().enumerate() {
        if form == Form::Json {
            output.json(&letter::to_json(found, false))?;
        } else {
            if index > 0 {
                output.line("")?;
            }
            print(found, output)?;
        }
    }
    Ok(Verdict::Done)
}

fn print(found: &DeadLetter, output: &mut Output) -> anyhow::Result<()> {
    let DeadLetter {
        worker_type,
        message,
        reason,
        error,
        stack,
        plugin,
        host,
        died_ms,
    } = found;
    let job = found.job();
    let mut line = |name: &str, text: Option<&str>| match text {
        // Further lines of a long text under its first.
        Some(text) => {
            let text = clean(text).trim_end().replace('\n', "\n            ");
            output.line(&format!("{name:<12}{text}"))
        }
        None => Ok(()),
    };
    let reply_to = message.reply_to.as_ref().map(ToString::to_string);
    let time = |ms: &Option<u64>| ms.map(|ms| moment::shown(Some(ms)));
    line("id", Some(&message.id))?;
    line("type", Some(worker_type.as_str()))?;
    line("reason", Some(reason))?;
    line("error", Some(error))?;
    line("stack", stack.as_deref())?;
    line("attempts", Some(&message.attempt.to_string()))?;
    line("first", time(&message.first_ms).as_deref())?;
    line("died", time(died_ms).as_deref())?;
    line("plugin", plugin.as_deref())?;
    line("host", host.as_deref())?;
    line("deadline", time(&message.deadline_ms).as_deref())?;
    line("call", message.correlation_id.as_deref())?;
    line("reply to", reply_to.as_deref())?;
    line("trace", message.trace_parent.as_deref())?;
    if let Ok(job) = &job {
        line("route", Some(&letter::route(job)))?;
        line("sender", Some(&job.sender.id))?;
    }
    let size = format!("{}, {} bytes", message.encoding, message.body.len());
    line("body", Some(&size))?;
    if message.kind == Kind::Bundle
        && let Ok(parts) = message.unbundle()
    {
        output
            .line("a bundle of messages that one run has sent, of which all are sent or none:")?;
        for part in parts {
            output.line(&format!("    {} to {}", clean(&part.id), part.to))?;
        }
        return Ok(());
    }
    let data = job.as_ref().ok().and_then(letter::data);
    match (data, job.err()) {
        (Some(data), _) => output.line(&serde_json::to_string_pretty(&data)?)?,
        (None, Some(error)) => output.line(&format!(
            "it cannot be read ({error}); --raw writes its bytes"
        ))?,
        (None, None) => output.line("what it carries cannot be said in JSON; --raw writes it")?,
    }
    Ok(())
}
