//! A throwaway host for one test: network, mount, PID, cgroup, IPC and UTS namespaces of its own
//! on the real kernel, with an empty `/run` and `/var/lib`, its own `/proc` and `/sys`, and its own
//! cgroups. Two of them do not see each other, so tests may use the same names side by side.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::cgroups::{Cgroups, PREFIX};
use super::leaks::Snapshot;
use super::netns;
use super::output::Output;
use super::poll;
use super::pty::OnTerminal;
use super::spawned::Spawned;
use super::uplink::Uplink;

/// PID 1 of a host.
const BOOT: &str = include_str!("boot.sh");

/// Moves itself into the cgroups that are listed before `--`, then becomes the command.
const JOIN: &str = r#"while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs" || exit 99; shift; done; shift; exec "$@""#;

/// The search path of every command.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// On pure v2 the cgroup of the host's own processes: a cgroup that hands controllers to its
/// children may hold no process itself (cgroups(7), "no internal processes").
pub(crate) const OWN_CGROUP: &str = "own";

/// The host; everything goes when it is dropped, and what was left behind in it fails the test.
#[derive(Debug)]
pub(crate) struct TestHost {
    name: String,
    /// util-linux `unshare`, whose only child is PID 1 of the host.
    unshare: Child,
    init: u32,
    stdin: Option<ChildStdin>,
    directory: PathBuf,
    /// Where carboy and spawned commands belong, as the machine sees it.
    own_cgroups: Vec<PathBuf>,
    allowed: Vec<String>,
    baseline: Option<Snapshot>,
    uplink: Option<Uplink>,
    /// Dropped after everything that may run in them.
    cgroups: Cgroups,
}

impl TestHost {
    /// A host with the machine's own arrangement of cgroups: hybrid or pure v2.
    pub(crate) fn new() -> Self {
        Self::boot(false)
    }

    /// A host with nothing but cgroup2 on `/sys/fs/cgroup`. On a hybrid machine the controllers
    /// that v1 holds are absent there, so limits cannot be tested on it.
    pub(crate) fn cgroup2() -> Self {
        Self::boot(true)
    }

    fn boot(only_v2: bool) -> Self {
        require_privileges();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        fs::create_dir_all(&directory).unwrap();
        let cgroups = Cgroups::new(&name);
        let (mounts, own) = layout(&cgroups, only_v2);
        let mut command = clean(Command::new("sh"), &directory);
        command.args(["-c", JOIN, "sh"]);
        command.args(cgroups.directories().iter().map(|(_, directory)| directory)).arg("--");
        command.args(["unshare", "--fork", "--kill-child", "--pid", "--mount", "--net", "--ipc"]);
        command.args(["--uts", "--cgroup", "--propagation", "private", "bash", "-c", BOOT, "boot"]);
        command.args(mounts).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut unshare = command.spawn().unwrap();
        let init = wait_ready(&mut unshare, "the test host");
        let stdin = unshare.stdin.take();
        for group in own.iter().filter(|group| group.ends_with(OWN_CGROUP)) {
            fs::create_dir(group).unwrap();
            for pid in [unshare.id(), init] {
                fs::write(group.join("cgroup.procs"), pid.to_string()).unwrap();
            }
        }
        let mut host = Self {
            name,
            unshare,
            init,
            stdin,
            directory,
            own_cgroups: own,
            allowed: Vec::new(),
            baseline: None,
            uplink: None,
            cgroups,
        };
        host.take_baseline();
        host
    }

    /// Its name, which no other host of the machine has at this time.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// PID 1 of the host, as the machine counts.
    pub(crate) fn init(&self) -> u32 {
        self.init
    }

    /// A directory on disk that the machine and the host both see; goes with the host.
    pub(crate) fn dir(&self) -> &Path {
        &self.directory
    }

    /// Where the machine sees a path of the host.
    pub(crate) fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let relative = inside.as_ref().strip_prefix("/").unwrap();
        Path::new(&format!("/proc/{}/root", self.init)).join(relative)
    }

    /// The host's own network namespace, or a named one of it.
    pub(crate) fn netns(&self, name: Option<&str>) -> PathBuf {
        match name {
            None => netns::of_pid(self.init),
            Some(name) => self.path(Path::new("/run/netns").join(name)),
        }
    }

    /// The test's cgroups.
    pub(crate) fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// Runs a command inside to its end.
    pub(crate) fn run<S: AsRef<str>>(&self, command: impl AsRef<[S]>) -> Output {
        let command = command.as_ref();
        // A dozen hierarchies of version 1 cost time, and there it can join them by itself.
        let ready = match self.own_cgroups.len() {
            1 => self.joined_command(command),
            _ => self.command(command),
        };
        Output::of(ready, shown(command), None)
    }

    /// Runs a command inside that must succeed and write JSON.
    #[track_caller]
    pub(crate) fn json<S: AsRef<str>>(&self, command: impl AsRef<[S]>) -> Value {
        self.run(command).ok().stdout_json()
    }

    /// Runs a command in a named network namespace of the host.
    pub(crate) fn netns_run<S: AsRef<str>>(&self, name: &str, command: impl AsRef<[S]>) -> Output {
        let mut all = vec!["ip", "netns", "exec", name];
        all.extend(command.as_ref().iter().map(AsRef::as_ref));
        self.run(all)
    }

    /// Runs the carboy of this build inside.
    pub(crate) fn carboy(&self, arguments: &[&str]) -> Output {
        self.carboy_with(arguments, &[], None)
    }

    /// Runs carboy with more in its environment and `input` on stdin.
    pub(crate) fn carboy_with(
        &self,
        arguments: &[&str],
        environment: &[(&str, &str)],
        input: Option<&[u8]>,
    ) -> Output {
        let all = carboy_command(arguments);
        let mut command = self.joined_command(&all);
        command.envs(environment.iter().copied());
        Output::of(command, shown(&all), input)
    }

    /// Starts carboy inside and goes on.
    pub(crate) fn spawn_carboy(&self, arguments: &[&str]) -> Spawned {
        self.spawn(carboy_command(arguments))
    }

    /// Starts carboy inside on a terminal and goes on.
    pub(crate) fn carboy_on_terminal(&self, arguments: &[&str], size: (u16, u16)) -> OnTerminal {
        OnTerminal::new(&self.joined_command(&carboy_command(arguments)), size.0, size.1)
    }

    /// Starts a command inside, in the host's own cgroups, and goes on.
    pub(crate) fn spawn<S: AsRef<str>>(&self, command: impl AsRef<[S]>) -> Spawned {
        let ready = self.joined_command(command.as_ref());
        Spawned::new(ready)
    }

    /// One attempt to connect to `to` from inside the host.
    pub(crate) fn tcp(&self, to: impl Into<SocketAddr>) -> std::io::Result<std::net::TcpStream> {
        netns::connect(&self.netns(None), to.into(), Duration::from_secs(2))
    }

    /// Gives the host a way out: a veth pair to a second namespace, 192.0.2.0/24, a default route.
    pub(crate) fn uplink(&mut self) -> &Uplink {
        self.uplink = Some(Uplink::new(self.init, &self.directory));
        self.take_baseline();
        self.uplink.as_ref().unwrap()
    }

    /// The same with IPv6 beside it: 2001:db8::/64.
    pub(crate) fn uplink6(&mut self) {
        self.uplink();
        self.existing_uplink().add_ipv6(self.init);
        self.take_baseline();
    }

    /// The way out that [`TestHost::uplink`] made.
    pub(crate) fn existing_uplink(&self) -> &Uplink {
        self.uplink.as_ref().unwrap()
    }

    /// Files at and below this path are no leak (an image store's own folders).
    pub(crate) fn allow(&mut self, path: &str) {
        self.allowed.push(path.to_owned());
        self.take_baseline();
    }

    /// What is there now is no leak.
    pub(crate) fn take_baseline(&mut self) {
        self.baseline = Some(Snapshot::of(self, &self.allowed));
    }

    /// What is there and was not, or the other way round; a line each, after the kernel has had
    /// time to finish its own removals.
    pub(crate) fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        poll(Duration::from_secs(2), || {
            leaks = self.differences();
            leaks.is_empty()
        });
        leaks
    }

    /// The same at this moment, without giving anything time.
    pub(crate) fn differences(&self) -> Vec<String> {
        let baseline = self.baseline.as_ref();
        baseline.map_or_else(Vec::new, |b| b.differences(&Snapshot::of(self, &self.allowed)))
    }

    /// Asserts that nothing was left behind and nothing is missing.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        let leaks = self.leaks();
        assert!(leaks.is_empty(), "left behind or missing:\n{}", leaks.join("\n"));
    }

    /// The check on drop is left out from now on.
    pub(crate) fn forget_leaks(&mut self) {
        self.baseline = None;
    }

    /// A command inside, with a clean environment.
    fn command<S: AsRef<str>>(&self, command: &[S]) -> Command {
        self.complete(Command::new("nsenter"), command)
    }

    /// The same in the host's own cgroups: nsenter alone would leave it in those of the test. It joins
    /// them first: from within a cgroup namespace nobody comes in, where the machine's cgroup2 is
    /// mounted with `nsdelegate` (as systemd does).
    fn joined_command<S: AsRef<str>>(&self, command: &[S]) -> Command {
        let mut sh = Command::new("sh");
        sh.args(["-c", JOIN, "sh"]).args(&self.own_cgroups).args(["--", "nsenter"]);
        self.complete(sh, command)
    }

    fn complete<S: AsRef<str>>(&self, start: Command, command: &[S]) -> Command {
        let mut nsenter = clean(start, &self.directory);
        nsenter.args(["--target", &self.init.to_string()]);
        nsenter.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"]);
        nsenter.args(command.iter().map(AsRef::as_ref));
        nsenter
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        let leaks = if std::thread::panicking() { Vec::new() } else { self.leaks() };
        self.uplink = None;
        drop(self.stdin.take());
        // When PID 1 dies the kernel kills all of its PID namespace and waits for it
        // (pid_namespaces(7)); the wait for its parent therefore waits for everything.
        // It may have ended by itself when its standard input closed.
        let _ = kill(Pid::from_raw(self.init.cast_signed()), Signal::SIGKILL);
        drop(self.unshare.wait());
        drop(fs::remove_dir_all(&self.directory));
        assert!(leaks.is_empty(), "left behind or missing:\n{}", leaks.join("\n"));
    }
}

/// Reads `ready PID` from a new namespace's first process; shows its stderr if it dies instead.
pub(crate) fn wait_ready(child: &mut Child, what: &str) -> u32 {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid = line.trim().strip_prefix("ready ").and_then(|pid| pid.parse().ok());
    pid.unwrap_or_else(|| {
        drop(child.stdin.take());
        let mut why = String::new();
        drop(child.stderr.take().unwrap().read_to_string(&mut why));
        drop(child.wait());
        panic!(
            "{what} does not start: {why}\nthe tests need root with all capabilities, namespaces, \
             util-linux and iproute2"
        )
    })
}

/// A command with nothing of the caller's environment.
pub(crate) fn clean(mut command: Command, home: &Path) -> Command {
    command.env_clear().env("PATH", PATH).env("HOME", home).env("LC_ALL", "C.UTF-8");
    command
}

fn carboy_command<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec![env!("CARGO_BIN_EXE_carboy")];
    all.extend(arguments);
    all
}

fn shown<S: AsRef<str>>(command: &[S]) -> String {
    command.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ")
}

/// What the boot script mounts on `/sys/fs/cgroup`, and where the host's own processes go, as the
/// machine sees it.
fn layout(cgroups: &Cgroups, only_v2: bool) -> (Vec<String>, Vec<PathBuf>) {
    let (mut mounts, mut own) = (Vec::new(), Vec::new());
    for (hierarchy, directory) in cgroups.directories() {
        if only_v2 && hierarchy.v1.is_some() {
            continue;
        }
        let root = Path::new("/sys/fs/cgroup");
        let at = if only_v2 { root } else { &hierarchy.mount };
        own.push(if at == root { directory.join(OWN_CGROUP) } else { directory.clone() });
        mounts.extend([
            at.display().to_string(),
            hierarchy.v1.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    (mounts, own)
}

/// A test that cannot be privileged fails; it is not skipped.
fn require_privileges() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes namespaces, mounts and cgroups: run it as root"
    );
    for (set, name) in [
        (caps::Capability::CAP_SYS_ADMIN, "CAP_SYS_ADMIN"),
        (caps::Capability::CAP_NET_ADMIN, "CAP_NET_ADMIN"),
        (caps::Capability::CAP_SYS_PTRACE, "CAP_SYS_PTRACE"),
        (caps::Capability::CAP_KILL, "CAP_KILL"),
        (caps::Capability::CAP_MKNOD, "CAP_MKNOD"),
    ] {
        assert!(
            caps::has_cap(None, caps::CapSet::Effective, set).unwrap(),
            "this test needs the capability {name}"
        );
    }
}
