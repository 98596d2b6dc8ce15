//! The tutorial of `guests/README.md`, done as it is written: its commands, in their order, in an empty
//! folder, with `warren` on the path. For each language, because that is what it promises.

use std::{
    env, fs,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use warren_tests::{
    host::{binary, repository},
    tools, try_within,
};

/// Tools are installed, a first worker built and, if it is CPython, compiled.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the tutorial has between its marks.
#[derive(Debug)]
enum Step {
    Run(String),
    /// In a terminal of its own.
    Stay(String),
    /// What the step before prints, at the latest when it is run again.
    Prints(String),
}

/// Where the tutorial is done.
struct Place {
    folder: PathBuf,
    path: String,
    admin: String,
    http: String,
}

/// What stays in a terminal; ended with the test.
struct Terminal(Child);

impl Drop for Terminal {
    fn drop(&mut self) {
        // The end of its input is the end of it, also when this process is killed.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn in_javascript() {
    is_done("js", "src/worker.js").await;
}

#[tokio::test]
async fn in_typescript() {
    is_done("ts", "src/worker.ts").await;
}

#[tokio::test]
async fn in_python() {
    is_done("python", "worker.py").await;
}

#[tokio::test]
async fn in_c() {
    is_done("c", "src/worker.c").await;
}

#[tokio::test]
async fn in_rust() {
    is_done("rust", "src/lib.rs").await;
}

async fn is_done(language: &str, source: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = env::var("PATH").unwrap();
    let [admin, http] = free_addresses();
    let mut place = Place {
        folder: folder.path().to_owned(),
        path: format!("{}:{path}", binary().parent().unwrap().display()),
        admin,
        http,
    };
    let mut terminals = Vec::new();
    let mut steps = steps(language, source).into_iter().peekable();
    while let Some(step) = steps.next() {
        match (step, steps.peek()) {
            // The host is not up at once, nor is what was just saved built.
            (Step::Run(commands), Some(Step::Prints(expected))) => {
                let mut found = Err(String::new());
                let printed = try_within(PATIENCE, async || {
                    found = place.run(&commands);
                    let out = found.as_ref().ok()?;
                    (out.trim() == expected).then_some(())
                });
                let is_printed = printed.await.is_some();
                assert!(is_printed, "`{commands}`: not {expected}, but {found:?}");
            }
            (Step::Run(commands), _) => {
                place.run(&commands).unwrap();
            }
            (Step::Stay(commands), _) => terminals.push(place.stay(&commands)),
            (Step::Prints(_), _) => {}
        }
    }
    assert_eq!(terminals.len(), 1, "the tutorial runs one host");
}

impl Place {
    /// Runs commands to their end, and stays where they have gone. Returns what they print.
    fn run(&mut self, commands: &str) -> Result<String, String> {
        let mark = "the folder is ";
        let script = format!("set -e\n{commands}\necho \"{mark}$PWD\"");
        let ran = self
            .bash(&script)
            .output()
            .map_err(|error| error.to_string())?;
        let out = String::from_utf8_lossy(&ran.stdout).into_owned();
        if !ran.status.success() {
            return Err(format!(
                "{commands}\n{out}{}",
                String::from_utf8_lossy(&ran.stderr)
            ));
        }
        let (printed, folder) = out.rsplit_once(mark).ok_or("it left the shell")?;
        self.folder = PathBuf::from(folder.trim());
        Ok(printed.to_owned())
    }

    fn stay(&self, commands: &str) -> Terminal {
        let script = format!(
            "{commands} &\nread -r _\nkill -TERM $!\n\
             for second in 1 2 3 4 5 6 7 8 9 10; do kill -0 $! 2>/dev/null || exit; sleep 1; done\n\
             kill -KILL $!"
        );
        let mut bash = self.bash(&script);
        bash.stdin(Stdio::piped()).stdout(Stdio::null());
        Terminal(bash.process_group(0).spawn().unwrap())
    }

    fn bash(&self, script: &str) -> Command {
        let mut bash = Command::new("bash");
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("WARREN_") || name == "BROKER_URL" {
                bash.env_remove(&name);
            }
        }
        bash.args(["-c", script])
            .current_dir(&self.folder)
            .env("PATH", &self.path)
            .env("WARREN_ADMIN", &self.admin)
            .env("WARREN_HTTP", &self.http)
            .env("WARREN_TOOLS", tools())
            .stdin(Stdio::null());
        bash
    }
}

/// Not the addresses that a host binds by default: others are at work on this machine.
fn free_addresses() -> [String; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().to_string())
}

/// The steps of the tutorial, which is written for JavaScript, in another language.
fn steps(language: &str, source: &str) -> Vec<Step> {
    let readme = fs::read_to_string(repository().join(Path::new("guests/README.md"))).unwrap();
    let readme = readme.replace("--lang js", &format!("--lang {language}"));
    let readme = readme.replace("src/worker.js", source);
    let mut steps = Vec::new();
    for part in readme.split("<!-- tutorial: ").skip(1) {
        let (kind, rest) = part.split_once(" -->\n").unwrap();
        let block = rest.trim_start().strip_prefix("```").unwrap();
        let (_, block) = block.split_once('\n').unwrap();
        let (block, _) = block.split_once("```").unwrap();
        let text = block.trim().to_owned();
        steps.push(match kind {
            "run" => Step::Run(text),
            "leave it running" => Step::Stay(text),
            "prints" => Step::Prints(text),
            other => panic!("the tutorial has a mark `{other}`"),
        });
    }
    assert!(steps.len() > 6, "{steps:?}");
    steps
}
