//! Starts the real program on a folder and a port of its own, and stops it however a test wants.
//!
//! It reads only what any program may read: the lines of `--json`, HTTP, and exit codes.

#![allow(dead_code)] // each test target uses its own part

use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The first start on a machine pulls the model.
const READY_LIMIT: Duration = Duration::from_secs(400);
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// The program, with the models shared by all tests and nothing of the caller's own settings.
pub(crate) fn assay(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
    for name in [
        "ASSAY_URL",
        "ASSAY_LOG",
        "ASSAY_RPC_URL",
        "ASSAY_DEPLOYMENT",
    ] {
        command.env_remove(name);
    }
    command
        .env("ASSAY_DATA_DIR", data)
        .env("ASSAY_MODELS_DIR", models_dir())
        .env("ASSAY_PASSWORD_FILE", password_file(data))
        .stdin(Stdio::null());
    command
}

/// What a test's keys are under.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

fn password_file(data: &Path) -> PathBuf {
    let path = data.join("password");
    if !path.exists() {
        std::fs::create_dir_all(data).expect("a folder is made");
        std::fs::write(&path, format!("{PASSWORD}\n")).expect("a password is written");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mine = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, mine).expect("a file can be hidden");
        }
    }
    path
}

fn models_dir() -> PathBuf {
    match std::env::var_os("ASSAY_MODELS_DIR") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).join("../models"),
    }
}

/// Runs a command to its end and returns what it printed, with its exit status.
pub(crate) fn run(data: &Path, args: &[&str]) -> Output {
    assay(data).args(args).output().expect("the program starts")
}

/// Runs a command that must succeed and prints JSON.
pub(crate) fn run_json(data: &Path, args: &[&str]) -> Value {
    let output = run(data, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "assay {args:?} failed: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "assay {args:?} printed no JSON ({error}): {}",
            String::from_utf8_lossy(&output.stdout)
        )
    })
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running `assay up --json`.
pub(crate) struct Market {
    child: Child,
    events: Receiver<Value>,
    pub(crate) ready: Value,
}

impl Market {
    pub(crate) fn start(data: &Path, args: &[&str]) -> Self {
        let mut market = Self::launch(data, args);
        market.ready = market.wait_for("ready", READY_LIMIT);
        market
    }

    /// Starts without waiting for anything.
    pub(crate) fn launch(data: &Path, args: &[&str]) -> Self {
        let mut command = assay(data);
        command
            .args(["up", "--json", "--listen", "127.0.0.1:0"])
            .args(args);
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            events,
            ready: Value::Null,
        }
    }

    pub(crate) fn wait_for(&mut self, name: &str, limit: Duration) -> Value {
        self.wait_until(limit, |event| event["event"] == name)
            .unwrap_or_else(|why| panic!("no event `{name}`: {why}"))
    }

    /// The first event that fits, or why there is none.
    pub(crate) fn wait_until(
        &mut self,
        limit: Duration,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value, String> {
        let end = Instant::now() + limit;
        let mut seen = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) if fits(&event) => return Ok(event),
                Ok(event) => seen.push(event.to_string()),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("not within {limit:?}; saw {seen:?}"));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("the program ended; saw {seen:?}"));
                }
            }
        }
    }

    pub(crate) fn url(&self) -> String {
        self.ready["url"]
            .as_str()
            .expect("the ready event names the url")
            .to_owned()
    }

    pub(crate) fn model(&self) -> String {
        self.ready["model"]
            .as_str()
            .expect("the ready event names the model")
            .to_owned()
    }

    /// As ctrl-c does.
    pub(crate) fn interrupt(mut self) -> ExitStatus {
        self.signal("-INT");
        self.wait()
    }

    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.signal("-TERM");
        self.wait()
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the program can be killed");
        self.child.wait().expect("the program ends");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status();
        assert!(sent.expect("kill is there").success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + STOP_LIMIT;
        while Instant::now() < end {
            if let Some(status) = self
                .child
                .try_wait()
                .expect("the program can be waited for")
            {
                return status;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the program does not stop within {STOP_LIMIT:?}");
    }
}

impl Drop for Market {
    /// A failed test leaves nothing running.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One HTTP request over a plain socket: status, and body as JSON where it is JSON.
pub(crate) fn http(method: &str, url: &str, body: Option<&[u8]>) -> (u16, Value) {
    let (status, text) = http_text(method, url, body);
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

pub(crate) fn http_text(method: &str, url: &str, body: Option<&[u8]>) -> (u16, String) {
    let mut command = Command::new("curl");
    command.args([
        "-sS",
        "-X",
        method,
        "-w",
        "\n%{http_code}",
        "--max-time",
        "120",
        url,
    ]);
    if body.is_some() {
        command.args([
            "-H",
            "content-type: application/json",
            "--data-binary",
            "@-",
        ]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("curl is installed");
    if let (Some(body), Some(mut stdin)) = (body, child.stdin.take()) {
        std::io::Write::write_all(&mut stdin, body).expect("curl reads its input");
    }
    let mut text = String::new();
    child
        .stdout
        .take()
        .expect("stdout is a pipe")
        .read_to_string(&mut text)
        .expect("the answer is UTF-8");
    assert!(
        child.wait().expect("curl ends").success(),
        "curl failed on {url}"
    );
    let (body, status) = text.rsplit_once('\n').expect("curl writes the status");
    (
        status.parse().expect("the status is a number"),
        body.to_owned(),
    )
}

/// A long-running command that says in its first lines what it serves.
pub(crate) struct Service {
    child: Child,
    lines: Receiver<String>,
}

impl Service {
    /// Starts it and waits for a line that contains `sign`.
    pub(crate) fn start(data: &Path, args: &[&str], sign: &str) -> Self {
        Self::start_with(data, args, sign, Stdio::inherit())
    }

    /// The same with its log in a file.
    pub(crate) fn start_logging(data: &Path, args: &[&str], sign: &str, log: &Path) -> Self {
        let log = std::fs::File::create(log).expect("a log is made");
        Self::start_with(data, args, sign, log.into())
    }

    fn start_with(data: &Path, args: &[&str], sign: &str, log: Stdio) -> Self {
        let mut command = assay(data);
        command.args(args).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let service = Self { child, lines };
        while let Ok(line) = service.lines.recv_timeout(READY_LIMIT) {
            if line.contains(sign) {
                return service;
            }
        }
        panic!("assay {args:?} never said `{sign}`");
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the program can be killed");
        self.child.wait().expect("the program ends");
    }

    /// Stops it as ctrl-c does; it must end well.
    pub(crate) fn interrupt(mut self) {
        let sent = Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status();
        assert!(sent.expect("kill is there").success());
        let end = Instant::now() + STOP_LIMIT;
        while Instant::now() < end {
            if let Some(status) = self
                .child
                .try_wait()
                .expect("the program can be waited for")
            {
                assert!(status.success(), "it ended with {status}");
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the program does not stop within {STOP_LIMIT:?}");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener
        .local_addr()
        .expect("a listener has an address")
        .to_string()
}
