//! The RabbitMQ bus over TLS, and where its password comes from: what is trusted, what is shown to
//! the broker, what is said when the two do not get along, and that it is mended without a restart.
//!
//! Each test has a broker of its own with a listener for TLS, and an authority of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::join_all};
use tempfile::TempDir;
use tokio::{net::TcpStream, time::timeout};
use warren_bus::{Bus, Health, Inbox, Message, RabbitMq, RabbitMqConfig};
use warren_protocol::{Address, Encoding, WorkerId, WorkerType};
use warren_tests::{
    Broker, Host, LIMIT, Setup, Site,
    certificates::{Authority, Certificate, Validity::*},
    eventually, soon,
};

/// How soon the health says what is wrong, whatever it is.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
const EXTERNAL: &str = "auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_broker_is_used_when_its_certificate_is_trusted_and_for_its_name() {
    let site = Secure::start(false, "").await;
    let stranger = Authority::new("stranger");
    site.write("stranger.pem", stranger.certificate());
    site.write("ca-later.pem", stranger.certificate());
    let (tls, plain) = (site.port, site.broker.port());
    let (silent, silent_port) = listener();

    // A name that the certificate does not have; an authority that is another one, and then right.
    join_all([
        Case::new(&site, format!("amqps://guest:guest@localhost:{tls}"))
            .with_ca("ca.pem")
            .says([
                "certificate is for another host",
                "`localhost`",
                "127.0.0.1",
            ])
            .boxed(),
        Case::new(&site, format!("amqps://guest:guest@127.0.0.1:{tls}"))
            .with_ca("stranger.pem")
            .says(["not signed by an authority in", "stranger.pem", "ca_file"])
            .boxed(),
        Case::new(&site, format!("amqps://guest:guest@127.0.0.1:{tls}"))
            .says([
                "not signed by an authority in the operating system's",
                "ca_file",
            ])
            .boxed(),
        Case::new(&site, format!("amqps://guest:guest@127.0.0.1:{plain}"))
            .with_ca("ca.pem")
            .says(["does not speak TLS", "write amqp://", "port for TLS"])
            .boxed(),
        Case::new(&site, format!("amqp://guest:guest@127.0.0.1:{tls}"))
            .says(["if it is the port for TLS, write amqps://"])
            .boxed(),
        Case::new(
            &site,
            format!("amqps://guest:guest@127.0.0.1:{silent_port}"),
        )
        .with_ca("ca.pem")
        .says(["no answer in 8 s", "check that RabbitMQ"])
        .boxed(),
        Case::new(&site, format!("amqps://guest:hunter2@127.0.0.1:{tls}"))
            .with_ca("ca.pem")
            .says(["ACCESS_REFUSED", "check the password of `guest`"])
            .boxed(),
    ])
    .await;
    drop(silent);

    let case = Case::new(&site, format!("amqps://guest:guest@127.0.0.1:{tls}"));
    let (bus, _inbox) = case.with_ca("ca-later.pem").open();
    told(&bus, &["not signed by an authority in", "ca-later.pem"]).await;
    site.write("ca-later.pem", site.authority.certificate());
    does_a_job(&bus).await;

    // The broker's certificate expires, and is renewed.
    site.serve(&site.authority.server("127.0.0.1", Expired))
        .await;
    site.cut_connections().await;
    told(&bus, &["certificate has expired", "renew it on the broker"]).await;
    site.serve(&site.authority.server("127.0.0.1", Good)).await;
    does_a_job(&bus).await;

    // The file goes away, comes back damaged, and is put right.
    fs::remove_file(site.path("ca-later.pem")).unwrap();
    site.cut_connections().await;
    told(&bus, &["ca-later.pem cannot be read", "put it there"]).await;
    site.write("ca-later.pem", "-----BEGIN CERTIFICATE-----\nhunter2\n");
    told(&bus, &["ca-later.pem is damaged", "certificates in PEM"]).await;
    site.write("ca-later.pem", site.authority.certificate());
    does_a_job(&bus).await;
    bus.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_broker_is_told_by_a_certificate_who_we_are() {
    for versions in ["", "ssl_options.versions.1 = tlsv1.2\n"] {
        let site = Secure::start(true, &format!("{EXTERNAL}{versions}")).await;
        site.add_user("hunter2").await;
        site.broker.ctl(&["clear_password", "warren"]).await;
        let stranger = Authority::new("stranger");
        site.write_pair("good", &site.authority.client("warren", Good));
        site.write_pair("nobody", &site.authority.client("nobody", Good));
        site.write_pair("expired", &site.authority.client("warren", Expired));
        site.write_pair("foreign", &stranger.client("warren", Good));
        let tls = site.port;
        let case = |user: &str, pair: &str| {
            let case = Case::new(&site, format!("amqps://{user}127.0.0.1:{tls}"));
            case.with_ca("ca.pem").with_identity(pair)
        };

        join_all([
            Case::new(&site, format!("amqps://guest:guest@127.0.0.1:{tls}"))
                .with_ca("ca.pem")
                .says(["wants a client certificate", "cert_file and key_file"])
                .boxed(),
            case("", "nobody")
                .says([
                    "EXTERNAL",
                    "create the user",
                    "nobody.pem",
                    "ssl_cert_login_from",
                ])
                .boxed(),
            case("", "expired")
                .says(["expired.pem (cert_file) has expired", "renew it"])
                .boxed(),
            case("", "foreign")
                .says(["does not know the authority", "foreign.pem", "cacertfile"])
                .boxed(),
            case("guest:hunter2@", "good")
                .says(["PLAIN", "check the password of `guest`"])
                .boxed(),
        ])
        .await;
        for user in ["", "guest:guest@"] {
            let (bus, _inbox) = case(user, "good").open();
            does_a_job(&bus).await;
            bus.close().await;
        }

        // Both files are replaced while Warren runs, one after the other.
        let (bus, _inbox) = case("", "expired").open();
        told(&bus, &["has expired"]).await;
        let renewed = site.authority.client("warren", Good);
        site.write("expired.pem", &renewed.certificate);
        told(
            &bus,
            &[
                "expired.key is not the key of",
                "replace both files together",
            ],
        )
        .await;
        site.write("expired.key", &renewed.key);
        does_a_job(&bus).await;
        bus.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_broker_without_the_mechanism_is_named() {
    let site = Secure::start(true, "").await;
    site.write_pair("good", &site.authority.client("warren", Good));
    Case::new(&site, format!("amqps://127.0.0.1:{}", site.port))
        .with_ca("ca.pem")
        .with_identity("good")
        .says(["rabbitmq_auth_mechanism_ssl", "auth_mechanisms"])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_broker_takes_the_password_that_is_in_the_file_now() {
    const SECRETS: [&str; 3] = ["hunter2", "s3cr%t /@:", "Tr0ub4dor&3"];
    let site = Secure::start(false, "").await;
    site.add_user(SECRETS[0]).await;
    site.write("password", SECRETS[0]);
    let url = format!("amqp://warren@127.0.0.1:{}", site.broker.port());
    let (bus, _inbox) = Case::new(&site, url).with_password().open();
    does_a_job(&bus).await;

    // The broker first, then the file; with the end of line that an editor adds.
    site.change_password(SECRETS[1]).await;
    site.cut_connections().await;
    let problem = told(
        &bus,
        &["ACCESS_REFUSED", "password holds the password of `warren`"],
    )
    .await;
    site.write("password", format!("{}\n", SECRETS[1]));
    does_a_job(&bus).await;

    // The file first.
    site.write("password", SECRETS[2]);
    site.change_password(SECRETS[2]).await;
    site.cut_connections().await;
    does_a_job(&bus).await;
    let shown = format!("{bus:?} {problem}");
    for secret in SECRETS {
        assert!(!shown.contains(secret), "{shown}");
    }
    bus.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_broker_serves_a_host_with_a_certificate_that_is_rotated() {
    let site = Secure::start(true, EXTERNAL).await;
    site.add_user("hunter2").await;
    let first = site.authority.client("warren", Good);
    site.write_pair("good", &first);
    site.write("password", "hunter2\n");
    // One host is who its certificate says, the other one who its password says.
    let config = format!(
        "[broker_tls]\nca_file = '{}'\ncert_file = '{}'\nkey_file = '{}'\n",
        site.path("ca.pem").display(),
        site.path("good.pem").display(),
        site.path("good.key").display()
    );
    let with_password = format!(
        "broker_password_file = '{}'\n{config}",
        site.path("password").display()
    );
    let host = |user: &str, config: &str| {
        let setup = Setup::new(&Site::embedded())
            .with_movies()
            .with_config(config);
        let url = format!("amqps://{user}127.0.0.1:{}", site.port);
        setup
            .with_variable("WARREN_BROKER", &url)
            // As in a container without certificates.
            .with_variable("SSL_CERT_FILE", "/no/such/file")
            .with_variable("SSL_CERT_DIR", "/no/such/folder")
            .with_option("--log", "trace")
    };
    for host in [host("", &config), host("warren@", &with_password)] {
        let host = host.start().await;
        let alien = host.post("/movies/", r#"{"title":"Alien"}"#).await;
        assert_eq!(alien.status, 200, "{}", alien.text());

        let renewed = site.authority.client("warren", Good);
        site.write_pair("good", &renewed);
        site.write("password", "hunter3\n");
        site.change_password("hunter3").await;
        site.cut_connections().await;
        answers(&host, "Alien").await;
        fs::remove_file(site.path("ca.pem")).unwrap();
        site.cut_connections().await;
        let readyz = eventually("readiness names the file", async || {
            let readyz = host.admin("/readyz").await;
            readyz
                .text()
                .contains("ca.pem cannot be read")
                .then(|| readyz.text())
        })
        .await;
        site.write("ca.pem", site.authority.certificate());
        host.ready().await;
        answers(&host, "Alien").await;

        let end = host.stop().await;
        assert_eq!(end.code, Some(0));
        let key = |pair: &Certificate| pair.key.lines().nth(1).unwrap().to_owned();
        for secret in [
            "hunter2",
            "hunter3",
            &key(&first),
            &key(&renewed),
            "PRIVATE KEY",
        ] {
            assert!(!readyz.contains(secret), "a secret is in {readyz}");
            assert!(!end.log.contains(secret), "a secret is in the log");
        }
        site.write("password", "hunter2\n");
        site.change_password("hunter2").await;
    }
    let host = host("warren@", "").start_unready().await;
    eventually("readiness says that nobody is trusted", async || {
        let readyz = host.admin("/readyz").await.text();
        let told = readyz.contains("no certificates of authorities") && readyz.contains("ca_file");
        told.then_some(())
    })
    .await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_mistakes_of_the_configuration() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let authority = Authority::new("authority");
    let (one, other) = (authority.client("a", Good), authority.client("b", Good));
    fs::write(path("cert.pem"), &one.certificate).unwrap();
    fs::write(path("other.key"), &other.key).unwrap();
    fs::write(path("password"), "hunter2\nand more\n").unwrap();
    let config = format!(
        "http = 8080\n\
         broker = \"amqps://warren@127.0.0.1\"\n\
         broker_password_file = '{}'\n\
         [broker_tls]\n\
         ca_file = '{}'\n\
         cert_file = '{}'\n\
         key_file = '{}'\n",
        path("password").display(),
        path("other.key").display(),
        path("cert.pem").display(),
        path("missing.key").display(),
    );
    let (code, output) = check(&config);
    assert_eq!(code, Some(64), "{output}");
    for part in [
        "w.toml:1:8 (key http)",
        "w.toml:3:24 (key broker_password_file)",
        "password has more than one line",
        "w.toml:5:11 (key broker_tls.ca_file)",
        "other.key holds no certificate",
        "w.toml:7:12 (key broker_tls.key_file)",
        "missing.key cannot be read",
    ] {
        assert!(output.contains(part), "{part:?} is not in {output}");
    }
    assert!(!output.contains("hunter2"), "{output}");

    fs::write(path("password"), "hunter2").unwrap();
    let config = config
        .replace("http = 8080\n", "")
        .replace("missing.key", "other.key")
        .replacen("other.key", "cert.pem", 1);
    let (code, output) = check(&config);
    assert_eq!(code, Some(64), "{output}");
    assert!(output.contains("other.key is not the key of"), "{output}");

    fs::write(path("other.key"), &one.key).unwrap();
    let (code, output) = check(&config);
    assert_eq!(code, Some(0), "{output}");
    assert!(
        output.contains("key_file = ") && !output.contains("hunter2"),
        "{output}"
    );
}

/// A broker with a listener for TLS, and the files of both sides.
struct Secure {
    broker: Broker,
    /// Of the listener for TLS.
    port: u16,
    authority: Authority,
    folder: TempDir,
}

impl Secure {
    /// A broker that lets clients in without a certificate, or wants one and takes their name from
    /// it; with further lines of `rabbitmq.conf`.
    async fn start(wants_certificate: bool, settings: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let (listener, port) = listener();
        drop(listener);
        let files = folder.path().display();
        let settings = format!(
            "listeners.ssl.1 = 127.0.0.1:{port}\n\
             ssl_options.cacertfile = {files}/ca.pem\n\
             ssl_options.certfile = {files}/server.pem\n\
             ssl_options.keyfile = {files}/server.key\n\
             ssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = {wants_certificate}\n\
             ssl_cert_login_from = common_name\n\
             {settings}"
        );
        let authority = Authority::new("authority");
        fs::write(folder.path().join("ca.pem"), authority.certificate()).unwrap();
        let server = authority.server("127.0.0.1", Good);
        fs::write(folder.path().join("server.pem"), server.certificate).unwrap();
        fs::write(folder.path().join("server.key"), server.key).unwrap();
        let plugins = ["rabbitmq_auth_mechanism_ssl"];
        let broker = Broker::start_with_plugins(&settings, &plugins).await;
        eventually("the listener for TLS is there", async || {
            TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        Self {
            broker,
            port,
            authority,
            folder,
        }
    }

    /// Makes the user `warren`.
    async fn add_user(&self, password: &str) {
        self.broker.ctl(&["add_user", "warren", password]).await;
        let everything = ["set_permissions", "warren", ".*", ".*", ".*"];
        self.broker.ctl(&everything).await;
    }

    async fn change_password(&self, password: &str) {
        let change = ["change_password", "warren", password];
        self.broker.ctl(&change).await;
    }

    async fn cut_connections(&self) {
        self.broker.ctl(&["close_all_connections", "test"]).await;
    }

    /// Gives the broker another certificate.
    async fn serve(&self, certificate: &Certificate) {
        self.write_pair("server", certificate);
        self.broker.ctl(&["eval", "ssl:clear_pem_cache()."]).await;
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    fn write_pair(&self, name: &str, pair: &Certificate) {
        self.write(&format!("{name}.pem"), &pair.certificate);
        self.write(&format!("{name}.key"), &pair.key);
    }
}

/// A client of a broker.
struct Case<'a> {
    site: &'a Secure,
    config: RabbitMqConfig,
}

impl<'a> Case<'a> {
    fn new(site: &'a Secure, url: String) -> Self {
        let config = RabbitMqConfig::new(vec![url], new_worker().worker_type().to_string());
        Self { site, config }
    }

    fn with_ca(mut self, name: &str) -> Self {
        self.config.files.ca = Some(self.site.path(name));
        self
    }

    fn with_identity(mut self, name: &str) -> Self {
        self.config.files.certificate = Some(self.site.path(&format!("{name}.pem")));
        self.config.files.key = Some(self.site.path(&format!("{name}.key")));
        self
    }

    fn with_password(mut self) -> Self {
        self.config.files.password = Some(self.site.path("password"));
        self
    }

    fn open(self) -> (RabbitMq, Inbox) {
        RabbitMq::connect(self.config).unwrap()
    }

    /// It cannot connect, says so in time with these texts, and shows no password.
    async fn says<const N: usize>(self, texts: [&str; N]) {
        let url = self.config.urls[0].clone();
        let start = Instant::now();
        let (bus, _inbox) = self.open();
        let problem = told(&bus, &texts).await;
        let took = start.elapsed();
        assert!(took < TOLD_WITHIN, "{url}: {took:?}");
        assert!(!format!("{bus:?} {problem}").contains("hunter2"));
        bus.close().await;
    }
}

/// Waits for a problem with all these texts.
async fn told(bus: &RabbitMq, texts: &[&str]) -> String {
    let mut health = bus.health();
    let mut last = String::new();
    let has_all = |health: &Health| {
        let problem = health.problem.as_deref().unwrap_or_default();
        problem.clone_into(&mut last);
        texts.iter().all(|text| problem.contains(text))
    };
    let waited = timeout(LIMIT, health.wait_for(has_all)).await;
    assert!(waited.is_ok(), "{texts:?} are not in: {last}");
    drop(waited);
    last
}

/// Publishes a job and takes it.
async fn does_a_job(bus: &RabbitMq) {
    let worker = new_worker();
    let mut jobs = bus.join(&worker, 1).await.unwrap();
    eventually("a job is stored", async || {
        bus.publish(job(&worker)).await.ok()
    })
    .await;
    let delivery = soon("a job", jobs.recv()).await.unwrap();
    assert_eq!(delivery.message.body, "x");
    delivery.ack().await.unwrap();
    bus.leave(&worker).await;
}

async fn answers(host: &Host, title: &str) {
    eventually("the host answers again", async || {
        let response = host.get("/movies/").await;
        (response.status == 200 && response.text().contains(title)).then_some(())
    })
    .await;
}

/// What `warren run --check` says of a configuration, and its exit code.
fn check(config: &str) -> (Option<i32>, String) {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("w.toml"), config).unwrap();
    let test = env::current_exe().unwrap();
    let binary = test.parent().and_then(Path::parent).unwrap().join("warren");
    let output = Command::new(binary)
        .args(["run", "--check", "--config", "w.toml"])
        .current_dir(folder.path())
        .env_clear()
        .output()
        .unwrap();
    let [out, error] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code(), out + &error)
}

/// Takes connections and says nothing.
fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A worker of a type that no other test has.
fn new_worker() -> WorkerId {
    let digits = WorkerId::draw(&WorkerType::new("T").unwrap());
    let name = digits.as_str().replace(':', "");
    WorkerId::draw(&WorkerType::new(&name).unwrap())
}

fn job(worker: &WorkerId) -> Message {
    Message::new(
        new_worker().to_string(),
        Address::Any(worker.worker_type().clone()),
        Encoding::Json,
        "x".into(),
    )
}
