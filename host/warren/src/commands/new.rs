//! `warren new`: makes a folder for a new worker, and asks for what is missing where somebody is there
//! to answer.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use warren_project::Language;
use warren_protocol::WorkerType;

use super::{
    Verdict,
    output::{Output, say},
};

pub(crate) const ABOUT: &str = "\
Makes a folder for a new worker: source, SDK, contract, README and a test. It is complete in itself: nothing \
of Warren's repository is needed to build it. What is missing on the command line is asked for on a terminal.";

pub(crate) const AFTER: &str = "\
Exit codes: 0 the folder is there, 1 a file cannot be written, 64 misuse (something is missing and nobody \
can be asked, the name does not do, or the folder is not empty).

Examples:
  warren new greeter --lang python
  warren new workers/order-desk --lang ts --type ORDERS";

/// What the worker is to be.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct New {
    /// The name of the worker, and of its folder: small letters, digits, `-` and `_`. A path in front
    /// of it says where the folder is made
    #[arg(value_name = "NAME")]
    pub name: Option<PathBuf>,
    /// The language: rust, js, ts, python or c
    #[arg(long, value_name = "LANGUAGE", value_parser = |text: &str| text.parse::<Language>())]
    pub lang: Option<Language>,
    /// The type under which it works on the bus [default: the name in capitals]
    #[arg(long = "type", value_name = "TYPE")]
    pub worker_type: Option<String>,
}

/// Makes the folder.
///
/// # Errors
/// When a file or the answer cannot be written.
pub fn run(new: &New) -> anyhow::Result<Verdict> {
    let stdin = io::stdin();
    let is_dialogue = stdin.is_terminal() && io::stderr().is_terminal();
    let (folder, language) = if is_dialogue {
        ask(new, &mut stdin.lock(), &mut io::stderr())?
    } else {
        match (&new.name, new.lang) {
            (Some(name), Some(language)) => (name.clone(), language),
            (None, _) => {
                return Ok(misuse(
                    "the name is missing: warren new NAME --lang LANGUAGE",
                ));
            }
            (_, None) => {
                let languages = Language::ALL.map(Language::name).join(", ");
                return Ok(misuse(&format!(
                    "the option --lang is missing; it is one of {languages}"
                )));
            }
        }
    };
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    if let Err(mistake) = warren_project::check_name(&name) {
        return Ok(misuse(&format!("the name {mistake}")));
    }
    let default = || warren_project::default_type(&name);
    let worker_type = new.worker_type.clone().unwrap_or_else(default);
    if let Err(error) = WorkerType::new(&worker_type) {
        return Ok(misuse(&format!("option --type: {error}")));
    }
    match warren_project::create(&folder, &name, &worker_type, language) {
        Ok(()) => {}
        Err(error @ warren_project::Error::Refused(_)) => return Ok(misuse(&error.to_string())),
        Err(error) => return Err(error.into()),
    }
    let mut output = Output::new();
    for line in next_steps(&folder, &worker_type, language) {
        output.line(&line)?;
    }
    output.flush()?;
    Ok(Verdict::Done)
}

fn misuse(text: &str) -> Verdict {
    say(&format!("warren: {text}"));
    Verdict::Misuse
}

fn next_steps(folder: &Path, worker_type: &str, language: Language) -> [String; 7] {
    let folder = folder.display();
    [
        format!("{folder} holds a worker in {language}, of the type {worker_type}. Next:"),
        String::new(),
        format!("  cd {folder}"),
        "  warren build        make a plugin of it".to_owned(),
        "  warren test         try it, without a broker".to_owned(),
        "  warren dev .        run it, and build it anew whenever a file is saved".to_owned(),
        format!("  warren call {worker_type} '{{\"name\":\"Ripley\"}}'   in another terminal"),
    ]
}

/// Asks for what is missing.
fn ask(
    new: &New,
    answers: &mut impl BufRead,
    questions: &mut impl Write,
) -> io::Result<(PathBuf, Language)> {
    let mut answer = |question: &str| -> io::Result<String> {
        write!(questions, "{question}: ")?;
        questions.flush()?;
        let mut line = String::new();
        if answers.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim().to_owned())
    };
    let name = match &new.name {
        Some(name) => name.clone(),
        None => loop {
            let name = answer("Name of the worker")?;
            if !name.is_empty() {
                break name.into();
            }
        },
    };
    let language = match new.lang {
        Some(language) => language,
        None => loop {
            let languages = Language::ALL.map(Language::name).join(", ");
            match answer(&format!("Language ({languages})"))?.parse::<Language>() {
                Ok(language) => break language,
                Err(mistake) => say(&mistake),
            }
        },
    };
    Ok((name, language))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_asked_for_until_it_does() {
        #[track_caller]
        fn check(name: Option<&str>, lang: Option<Language>, answers: &str, asked: &str) {
            let new = New {
                name: name.map(PathBuf::from),
                lang,
                worker_type: None,
            };
            let mut questions = Vec::new();
            let told = ask(&new, &mut answers.as_bytes(), &mut questions).unwrap();
            assert_eq!(told, ("greeter".into(), Language::Python));
            assert_eq!(String::from_utf8(questions).unwrap(), asked);
        }
        let python = Some(Language::Python);
        let lang = "Language (rust, js, ts, python, c): ";
        check(Some("greeter"), python, "", "");
        check(Some("greeter"), None, "py\n", lang);
        check(Some("greeter"), None, "cobol\nPython\n", &lang.repeat(2));
        check(
            None,
            python,
            "\ngreeter\n",
            &"Name of the worker: ".repeat(2),
        );
        let new = New {
            name: None,
            lang: None,
            worker_type: None,
        };
        assert!(ask(&new, &mut "".as_bytes(), &mut Vec::new()).is_err());
    }
}
