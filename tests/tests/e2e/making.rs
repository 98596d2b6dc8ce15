//! `warren new`, `warren build` and `warren dev`, in every language: in a folder outside of the
//! repository, with the tools that `warren build` installs by itself.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use warren_tests::{
    BUILT_GUESTS, Command, Host, Ran, Setup, Site, VirtualHost, copy_built, eventually_within,
    host::plugin, tools,
};

use crate::has;

/// Where a worker begins in each language, something that is said once there, and what makes it wrong.
struct Language {
    name: &'static str,
    source: &'static str,
    mistake: &'static str,
    /// A part of what the compiler says about it.
    complaint: &'static str,
}

const RUST: Language = Language {
    name: "rust",
    source: "src/lib.rs",
    mistake: "\nfn mistake() -> u8 { \"text\" }\n",
    complaint: "mismatched types",
};
const JAVASCRIPT: Language = Language {
    name: "js",
    source: "src/worker.js",
    mistake: "\nconst = 1;\n",
    complaint: "worker.js:",
};
const TYPESCRIPT: Language = Language {
    name: "ts",
    source: "src/worker.ts",
    mistake: "\nconst mistake: number = \"text\";\n",
    complaint: "TS2322",
};
const PYTHON: Language = Language {
    name: "python",
    source: "worker.py",
    mistake: "\ndef mistake(:\n",
    complaint: "SyntaxError",
};
const C: Language = Language {
    name: "c",
    source: "src/worker.c",
    mistake: "\nint mistake(void) { return nobody; }\n",
    complaint: "undeclared identifier 'nobody'",
};

/// CPython is compiled for 10 s on a machine of its own.
const PATIENCE: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_worker_in_rust_is_built_checked_and_called() {
    is_built_checked_and_called(&RUST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_worker_in_javascript_is_built_checked_and_called() {
    is_built_checked_and_called(&JAVASCRIPT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_worker_in_typescript_is_built_checked_and_called() {
    is_built_checked_and_called(&TYPESCRIPT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_worker_in_python_is_built_checked_and_called() {
    is_built_checked_and_called(&PYTHON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_worker_in_c_is_built_checked_and_called() {
    is_built_checked_and_called(&C).await;
}

async fn is_built_checked_and_called(language: &Language) {
    let place = Place::new();
    let folder = place.make("greeter", language).await;
    if language.name == RUST.name {
        lend_built_crates(&folder);
    }
    let plugin = folder.join("build/greeter.wasm");
    let ran = place.warren("check").with(path(&folder)).run().await;
    has(&ran.ended_with(1).err, ["is not built", "warren build"]);

    let said = place.build(&folder).await.ended_with(0);
    has(&said.text(), ["greeter.wasm", "built in"]);
    let built = fs::read(&plugin).unwrap();
    let checked = place.warren("check").with(path(&folder)).run().await;
    has(&checked.ended_with(0).text(), ["GREETER", "would load it"]);

    let written = || fs::metadata(&plugin).unwrap().modified().unwrap();
    let before = written();
    let said = place.build(&folder).await.ended_with(0);
    has(&said.text(), ["greeter.wasm", "unchanged"]);
    assert_eq!(written(), before);

    // A mistake is shown as the compiler shows it, and the plugin of before stays.
    let source = folder.join(language.source);
    edit(&source, |text| text + language.mistake);
    let said = place.build(&folder).await.ended_with(1);
    has(&said.err, ["greeter does not build", language.complaint]);
    assert_eq!(fs::read(&plugin).unwrap(), built);
    edit(&source, |text| text.replace(language.mistake, ""));
    place.build(&folder).await.ended_with(0);

    let broker = VirtualHost::new().await;
    for site in [Site::embedded(), Site::within(&broker)] {
        let setup = Setup::new(&site).with_file("plugins/greeter.wasm", &built);
        let host = setup.start_unready().await;
        serves(&host, "GREETER").await;
        let reply = call(&site, &host, json!({"name": "Ripley"})).await;
        assert_eq!(
            reply.ended_with(0).json(),
            [json!({"text": "Hello, Ripley!"})]
        );
        let refused = call(&site, &host, json!({"name": ""})).await;
        has(&refused.ended_with(2).err, ["there is nobody to greet"]);
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_project_is_said_at_once() {
    let place = Place::new();
    let folder = place.folder.path().join("odd");
    fs::create_dir(&folder).unwrap();
    has(
        &place.build(&folder).await.ended_with(64).err,
        ["no worker.toml", "warren new"],
    );
    fs::write(
        folder.join("worker.toml"),
        "names = \"odd\"\nlang = \"cobol\"\n",
    )
    .unwrap();
    let said = place.build(&folder).await.ended_with(64);
    has(
        &said.err,
        [
            "3 mistakes",
            "did you mean `name`",
            "`name` is missing",
            "`cobol`",
        ],
    );

    let new = |arguments: &str| place.warren(&format!("new {arguments}"));
    has(
        &new("").run().await.ended_with(64).err,
        ["the name is missing"],
    );
    has(
        &new("greeter").run().await.ended_with(64).err,
        ["--lang", "python"],
    );
    has(
        &new("Greeter --lang c").run().await.ended_with(64).err,
        ["`Greeter` does not do"],
    );
    let typed = new("greeter --lang c --type").with("no type");
    has(&typed.run().await.ended_with(64).err, ["option --type"]);
    let taken = place.warren("new --lang c").with(path(&folder));
    has(&taken.run().await.ended_with(64).err, ["not empty"]);
}

#[tokio::test]
async fn a_missing_tool_is_named_with_what_gets_it() {
    let place = Place::new();
    let nowhere = tempfile::tempdir().unwrap();
    for (language, tool) in [
        (&RUST, "rustup.rs"),
        (&JAVASCRIPT, "apt install nodejs npm"),
        (&TYPESCRIPT, "apt install nodejs npm"),
        (&PYTHON, "apt install python3 python3-venv"),
        (&C, "apt install clang-19 lld-19 wasi-libc"),
    ] {
        let folder = place
            .make(&format!("{}-greeter", language.name), language)
            .await;
        let without = |arguments: &str| {
            let warren = place.warren(arguments).with(path(&folder));
            warren
                .with_variable("PATH", path(nowhere.path()))
                .with_variable("WARREN_TOOLS", path(nowhere.path()))
        };
        let said = without("build").run().await.ended_with(69);
        has(&said.err, ["is missing", "to get it", tool]);
        if [JAVASCRIPT.name, TYPESCRIPT.name, PYTHON.name].contains(&language.name) {
            let said = without("build --offline").run().await.ended_with(69);
            has(&said.err, ["run this once without --offline"]);
        }
        let plugin = format!("build/{}-greeter.wasm", language.name);
        assert!(!folder.join(plugin).exists());
    }
}

/// A folder of workers in two languages, with the configuration of their host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_save_builds_the_worker_that_was_saved() {
    let place = Place::new();
    let c = place.make("c-greeter", &C).await;
    let js = place.make("js-greeter", &JAVASCRIPT).await;
    let configuration = "data_dir = \"brought\"\n";
    fs::write(place.folder.path().join("warren.toml"), configuration).unwrap();
    let setup = Setup::new(&Site::embedded()).with_dev(place.folder.path());
    let setup = setup.with_variable("WARREN_TOOLS", path(&tools()));
    let host = setup.start_unready().await;
    assert!(host.plugins.ends_with("brought/dev/plugins"));
    has_version(&host, "C-GREETER", "0.1.0").await;
    has_version(&host, "JS-GREETER", "0.1.0").await;
    assert!(host.log_contains("warren call JS-GREETER '{\"name\":\"Ripley\"}'"));

    edit(&c.join(C.source), |text| text.replace("0.1.0", "0.1.1"));
    has_version(&host, "C-GREETER", "0.1.1").await;
    assert!(!host.log_contains("js-greeter: sources changed"));

    // A mistake leaves the version before it serving, and is mended by the next save.
    edit(&js.join(JAVASCRIPT.source), |text| {
        text + JAVASCRIPT.mistake
    });
    logged(&host, "js-greeter: the versions before go on serving").await;
    assert!(host.log_contains(JAVASCRIPT.complaint));
    has_version(&host, "JS-GREETER", "0.1.0").await;
    edit(&js.join(JAVASCRIPT.source), |text| {
        let text = text.replace(JAVASCRIPT.mistake, "");
        text.replace("0.1.0", "0.1.2")
    });
    has_version(&host, "JS-GREETER", "0.1.2").await;
    assert_eq!(host.stop().await.code, Some(0));
}

/// A worker that does not build when the host starts takes part as soon as it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_does_not_build_is_waited_for() {
    let place = Place::new();
    let [one, other] = ["one", "other"];
    let one = place.make(one, &C).await;
    let other = place.make(other, &C).await;
    edit(&other.join(C.source), |text| text + C.mistake);
    let setup = Setup::new(&Site::embedded())
        .with_dev(&one)
        .with_folder(&other);
    let host = setup.start_unready().await;
    has_version(&host, "ONE", "0.1.0").await;
    assert!(host.log_contains("other: waits for a change"));
    assert!(host.worker("OTHER").await.is_none());
    edit(&other.join(C.source), |text| text.replace(C.mistake, ""));
    has_version(&host, "OTHER", "0.1.0").await;
}

/// A folder outside of the repository.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn warren(&self, arguments: &str) -> Command {
        Command::new(None, arguments).with_variable("WARREN_TOOLS", path(&tools()))
    }

    async fn make(&self, name: &str, language: &Language) -> PathBuf {
        let folder = self.folder.path().join(name);
        let new = self.warren(&format!("new --lang {}", language.name));
        let said = new.with(path(&folder)).run().await.ended_with(0);
        has(&said.text(), ["warren build", "warren dev", "warren call"]);
        folder
    }

    async fn build(&self, folder: &Path) -> Ran {
        let build = self.warren("build").with(path(folder));
        build.run_within(PATIENCE).await
    }
}

/// What cargo has built of the crates of others is the same for a new project: its lock has the same
/// versions.
fn lend_built_crates(folder: &Path) {
    // Says what to do when they are not built.
    assert!(!plugin("pilot").is_empty());
    for built in BUILT_GUESTS {
        copy_built(built, &folder.join("target").join(built));
    }
}

async fn call(site: &Site, host: &Host, data: Value) -> Ran {
    let call = Command::new(site.url(), "call GREETER").with(&data.to_string());
    match site.url() {
        Some(_) => call.run().await,
        None => {
            let admin = host.admin.to_string();
            call.with_variable("WARREN_ADMIN", &admin).run().await
        }
    }
}

async fn serves(host: &Host, worker_type: &str) {
    has_version(host, worker_type, "0.1.0").await;
    host.ready().await;
}

async fn has_version(host: &Host, worker_type: &str, version: &str) {
    let what = format!("{worker_type} serves in version {version}");
    eventually_within(PATIENCE, &what, async || {
        let worker = host.worker(worker_type).await?;
        (worker["version"] == version).then_some(())
    })
    .await;
}

async fn logged(host: &Host, text: &str) {
    eventually_within(PATIENCE, text, async || {
        host.log_contains(text).then_some(())
    })
    .await;
}

fn edit(file: &Path, change: impl FnOnce(String) -> String) {
    let before = fs::read_to_string(file).unwrap();
    let after = change(before.clone());
    assert_ne!(after, before);
    fs::write(file, after).unwrap();
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
