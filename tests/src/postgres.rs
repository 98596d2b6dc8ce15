//! A private PostgreSQL on a free port of 127.0.0.1, with data of its own, beside whatever else runs
//! on the machine. It lets everybody in who says a name.
//!
//! Invariants: nothing outlives the process that started it, also when that process is killed. This
//! file names nothing of the crate around it: the tests of the runtime read it, too.

#![allow(clippy::panic, reason = "a test without its database has failed")]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "not each of those who read it uses all of it"
)]

use std::{
    env, fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// The environment variable that names a server which the tests may use, by the URL of one of its
/// databases: `postgres://postgres@127.0.0.1:5432/postgres`. The user has to be a superuser, who needs
/// no password. The tests leave databases of their own there.
pub const SHARED_POSTGRES: &str = "WARREN_TEST_POSTGRES";

const REMEDY: &str = "install PostgreSQL (apt-get install -y --no-install-recommends postgresql), or \
     set WARREN_TEST_POSTGRES to the URL of a server that the tests may use";
/// Where Debian keeps what is not for everybody's path.
const FOLDERS: &str = "/usr/lib/postgresql";
const START_LIMIT: Duration = Duration::from_secs(60);
/// The user as whom the server is started where the tests are run by root, whom it refuses.
const USERS: [&str; 2] = ["postgres", "nobody"];
/// Nothing has to survive the machine; a test must be able to have many hosts.
const SETTINGS: [&str; 7] = [
    "fsync=off",
    "unix_socket_directories=",
    "max_connections=300",
    "shared_buffers=32MB",
    "max_wal_size=256MB",
    "log_min_messages=error",
    "autovacuum=off",
];

/// A server of this process's own. Dropping it ends the server and removes its data.
pub struct Postgres {
    /// Ends when its input does, and with it the server.
    guard: Child,
    folder: TempDir,
    port: u16,
    server: Option<Child>,
}

/// A database of one test's own.
pub struct Database {
    server: String,
    name: String,
}

impl Postgres {
    /// Starts a server and returns when it answers.
    ///
    /// # Panics
    /// When it cannot be started; the text says what to do.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("warren-postgres-")
            .tempdir();
        let folder = folder.unwrap_or_else(|error| panic!("no folder for PostgreSQL: {error}"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let port = listener.and_then(|listener| listener.local_addr());
        let port = port
            .unwrap_or_else(|error| panic!("no free port: {error}"))
            .port();
        // The server's own processes end with it, when it ends in this way.
        let script = r#"
            trap '' INT TERM HUP
            read -r _
            pid=$(head -n 1 "$0/data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid"
            for try in 1 2 3 4 5 6 7 8 9 10; do
                kill -0 "$pid" 2>/dev/null || break
                sleep 0.2
            done
            kill -KILL "$pid" 2>/dev/null
            rm -rf "$0"
        "#;
        let guard = Command::new("sh")
            .args(["-c", script])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("no guard for PostgreSQL: {error}"));
        let mut postgres = Self {
            guard,
            folder,
            port,
            server: None,
        };
        postgres.make();
        postgres.start_again();
        postgres
    }

    /// Makes the files of a server.
    fn make(&self) {
        let folder = self.folder.path();
        if let Some(user) = other_user() {
            own(folder, user);
        }
        let made = command("initdb")
            .current_dir(folder)
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8"])
            .args(["--locale=C.UTF-8", "--no-sync", "--pgdata=data"])
            .output();
        match made {
            Ok(made) if made.status.success() => {}
            Ok(made) => panic!(
                "PostgreSQL cannot be set up: {}; {REMEDY}",
                String::from_utf8_lossy(&made.stderr)
            ),
            Err(error) => panic!("no PostgreSQL for this test: {error}; {REMEDY}"),
        }
    }

    /// Has the server speak TLS, with this certificate and its key in PEM, when it is started again.
    ///
    /// # Panics
    /// When the files cannot be written.
    pub fn give_certificate(&self, certificate: &str, key: &str) {
        let data = self.folder.path().join("data");
        let write = |name: &str, text: &str| {
            let file = data.join(name);
            let written = fs::write(&file, text).and_then(|()| {
                // The server refuses a key that others may read.
                fs::set_permissions(&file, fs::Permissions::from_mode(0o600))
            });
            written.unwrap_or_else(|error| panic!("{name} of PostgreSQL: {error}"));
            if let Some(user) = other_user() {
                own(&file, user);
            }
        };
        write("server.crt", certificate);
        write("server.key", key);
        write("postgresql.auto.conf", "ssl = on\n");
    }

    /// Starts the server on the same port with the same data.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_again(&mut self) {
        assert!(self.server.is_none(), "PostgreSQL is running");
        let output = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("output"));
        let output = output.unwrap_or_else(|error| panic!("no output for PostgreSQL: {error}"));
        let mut command = command("postgres");
        command
            .current_dir(self.folder.path())
            .args([
                "-D",
                "data",
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            // A signal to the tests is not for the server: the guard ends it.
            .process_group(0);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        let server = command.spawn();
        self.server =
            Some(server.unwrap_or_else(|error| panic!("no PostgreSQL: {error}; {REMEDY}")));
        let begun = Instant::now();
        while self.try_sql("postgres", "SELECT 1").is_err() {
            if begun.elapsed() > START_LIMIT {
                let output = fs::read_to_string(self.folder.path().join("output"));
                panic!("PostgreSQL does not answer: {}", output.unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the server: its connections are closed, its data stay.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        let pid = server.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).status();
        let begun = Instant::now();
        while server.try_wait().is_ok_and(|ended| ended.is_none()) {
            assert!(begun.elapsed() < START_LIMIT, "PostgreSQL does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The URL of the server's first database.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn try_sql(&self, database: &str, statement: &str) -> Result<String, String> {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).map_err(|error| error.to_string())?;
        psql(&replace_database(&self.url(), database), statement)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
        if let Some(mut server) = self.server.take() {
            let _ = server.wait();
        }
    }
}

impl Database {
    /// A new, empty one, on the server that [`SHARED_POSTGRES`] names, or on one that is started for
    /// this process.
    ///
    /// # Panics
    /// When there is none and none can be started; the text says what to do.
    #[must_use]
    pub fn new() -> Self {
        static OWN: OnceLock<Postgres> = OnceLock::new();
        // What is static is not dropped: the guard ends it with this process.
        let server = env::var(SHARED_POSTGRES);
        Self::on(&server.unwrap_or_else(|_| OWN.get_or_init(Postgres::start).url()))
    }

    /// A new, empty one on this server.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn on(server: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let name = format!("t{process}_{count}");
        // A process of the same number may have been here before.
        for statement in [
            format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
            format!("CREATE DATABASE {name} TEMPLATE template0"),
        ] {
            psql(server, &statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
        Self {
            server: server.to_owned(),
            name,
        }
    }

    /// Its URL, for the superuser.
    #[must_use]
    pub fn url(&self) -> String {
        replace_database(&self.server, &self.name)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs statements as the superuser and returns what they answer, a line for each row, with `|`
    /// between values.
    ///
    /// # Panics
    /// When one fails.
    #[must_use]
    pub fn sql(&self, statements: &str) -> String {
        psql(&self.url(), statements).unwrap_or_else(|error| panic!("{statements}: {error}"))
    }
}

impl Default for Database {
    fn default() -> Self {
        Self::new()
    }
}

fn replace_database(url: &str, name: &str) -> String {
    let (server, _) = url.rsplit_once('/').unwrap_or((url, ""));
    format!("{server}/{name}")
}

fn psql(url: &str, statement: &str) -> Result<String, String> {
    let output = Command::new("psql")
        .args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            statement,
            url,
        ])
        .output()
        .map_err(|error| format!("psql: {error}; {REMEDY}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// A program of the server, as a user for whom it runs.
fn command(program: &str) -> Command {
    let program = path_of(program);
    match other_user() {
        None => Command::new(program),
        Some((user, group)) => {
            let mut command = Command::new("setpriv");
            command
                .arg(format!("--reuid={user}"))
                .arg(format!("--regid={group}"))
                .args(["--clear-groups", "--"])
                .arg(program);
            command
        }
    }
}

fn path_of(program: &str) -> PathBuf {
    let versions = fs::read_dir(FOLDERS).into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|version| version.path()).collect();
    let number = |path: &PathBuf| -> u32 {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.parse().ok()).unwrap_or(0)
    };
    versions.sort_by_key(number);
    let found = versions
        .iter()
        .rev()
        .map(|path| path.join("bin").join(program));
    let mut found = found.filter(|path| path.exists());
    found.next().unwrap_or_else(|| PathBuf::from(program))
}

/// Whom to become, where this process is root.
fn other_user() -> Option<(u32, u32)> {
    static USER: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *USER.get_or_init(|| {
        let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        let id = |option: &str, user: &str| -> Option<u32> {
            let output = Command::new("id").args([option, user]).output().ok()?;
            String::from_utf8_lossy(&output.stdout).trim().parse().ok()
        };
        let mut users = USERS.iter().filter(|_| is_root);
        users.find_map(|user| Some((id("-u", user)?, id("-g", user)?)))
    })
}

fn own(folder: &Path, (user, group): (u32, u32)) {
    if let Err(error) = std::os::unix::fs::chown(folder, Some(user), Some(group)) {
        panic!("the folder of PostgreSQL cannot be given away: {error}");
    }
}
