//! A program that embeds carboy, as a host of micro-VMs does: many threads that allocate, one that
//! reaps every child, and several that start and stop bundles at once.
//!
//! It must be root. It prints one JSON object: what the process was before and after (`before`,
//! `after`: the same, for the library leaves its caller alone), how often a bundle answered, and
//! what went wrong.
//!
//! ```text
//! embed [ROUNDS]      bundles per thread, one after the other; 3 unless given
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use carboy::oci::embedded;
use carboy::{
    BottleSpec, BundleLaunchSpec, Config, Engine, RunOptions, Slug, bundle_network_name,
    create_bundle_network, remove_bundle_network, start_bundle, stop_bundle,
};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde_json::{Value, json};

/// Threads that do nothing but allocate.
const BUSY: usize = 3;

/// Threads that start and stop bundles by the six primitives, and as many by [`Engine`].
const WORKERS: u8 = 2;

/// The port of the embedded image's echo daemon.
const ECHO: u16 = 9001;

fn main() -> ExitCode {
    // Before anything else: the library runs this very program again as its helper.
    carboy::helper::run_if_requested();

    let rounds = std::env::args().nth(1).map_or(Ok(3), |word| word.parse());
    let Ok(rounds) = rounds else { return usage() };
    // With the first thread the C library takes a signal for itself.
    drop(thread::spawn(|| ()).join());
    let before = of_process();
    let (stop, reaped) = (AtomicBool::new(false), AtomicUsize::new(0));
    let answered = AtomicUsize::new(0);
    let errors: Vec<String> = thread::scope(|scope| {
        for _ in 0..BUSY {
            scope.spawn(|| allocate(&stop));
        }
        scope.spawn(|| reap(&stop, &reaped));
        let workers: Vec<_> = (0..WORKERS)
            .flat_map(|n| [(n, by_primitives as Work), (n, by_engine)])
            .map(|(n, work)| {
                scope.spawn({
                    let answered = &answered;
                    move || repeat(rounds, n, work, answered)
                })
            })
            .collect();
        let errors = workers.into_iter().filter_map(|worker| match worker.join() {
            Ok(result) => result.err(),
            Err(_) => Some("a thread panicked".to_owned()),
        });
        let errors = errors.collect();
        stop.store(true, Ordering::Relaxed);
        errors
    });
    let report = json!({
        "before": before,
        "after": of_process(),
        "answered": answered.into_inner(),
        "wanted": usize::from(WORKERS) * 2 * rounds,
        "reaped": reaped.into_inner(),
        "errors": errors,
    });
    // Without a reader there is nobody to tell.
    let printed = writeln!(io::stdout(), "{report}");
    if errors.is_empty() && printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    // As above.
    drop(writeln!(io::stderr(), "usage: embed [ROUNDS]"));
    ExitCode::from(2)
}

type Work = fn(u8, &AtomicUsize) -> Result<(), Box<dyn Error>>;

/// Does `work` over and over; the error with all of its causes, and where this thread was changed.
fn repeat(rounds: usize, n: u8, work: Work, answered: &AtomicUsize) -> Result<(), String> {
    let before = of_thread();
    for round in 0..rounds {
        work(n, answered).map_err(|error| {
            let mut text = format!("round {round} of {n}: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                text.push_str(&format!(": {error}"));
                cause = error.source();
            }
            text
        })?;
    }
    let after = of_thread();
    if before == after { Ok(()) } else { Err(format!("a thread was {before} and is {after}")) }
}

/// The calls that replace Docker's.
fn by_primitives(n: u8, answered: &AtomicUsize) -> Result<(), Box<dyn Error>> {
    let slug: Slug = format!("primitive-{n}").parse()?;
    let network = bundle_network_name(&slug);
    let (subnet, gateway) = (format!("10.99.{n}.0/24").parse()?, Ipv4Addr::new(10, 99, n, 1));
    let bundle_ip = Ipv4Addr::new(10, 99, n, 2);
    create_bundle_network(&network, subnet, gateway)?;
    let spec = BundleLaunchSpec {
        slug: slug.clone(),
        network: network.clone(),
        subnet,
        gateway,
        bundle_ip,
        bundle_ip6: None,
        daemons_csv: None,
        environment: vec!["TOKEN".to_owned()],
        volumes: Vec::new(),
        image: embedded::REFERENCE.to_owned(),
        run: RunOptions::default(),
    };
    start_bundle(&spec, &secrets)?;
    echo(bundle_ip)?;
    answered.fetch_add(1, Ordering::Relaxed);
    stop_bundle(&slug)?;
    remove_bundle_network(&network)?;
    Ok(())
}

/// The verbs made of them, with addresses from the pool.
fn by_engine(n: u8, answered: &AtomicUsize) -> Result<(), Box<dyn Error>> {
    let engine = Engine::new(Config::default());
    let slug: Slug = format!("engine-{n}").parse()?;
    let spec = BottleSpec::new(slug.clone(), embedded::REFERENCE);
    let up = engine.up(&spec, false, &secrets)?;
    echo(up.plan.view.bundle_ip)?;
    answered.fetch_add(1, Ordering::Relaxed);
    engine.down(&slug, Duration::from_secs(5))?;
    Ok(())
}

/// A secret is passed by name; where it comes from is the program's own business.
fn secrets(name: &str) -> Option<String> {
    (name == "TOKEN").then(|| "secret".to_owned())
}

/// The bundle must send back what it is sent. `start` does not wait for its daemons.
fn echo(ip: Ipv4Addr) -> io::Result<()> {
    let address = SocketAddr::from((ip, ECHO));
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut stream = loop {
        match TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    };
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"carboy\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    if answer == *b"carboy\n" { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Keeps the allocator's locks busy: a process that is cloned meanwhile and then allocates hangs.
fn allocate(stop: &AtomicBool) {
    let mut length = 1;
    while !stop.load(Ordering::Relaxed) {
        length = length % 100_000 * 3 + 1;
        black_box(vec![0_u8; length]);
    }
}

/// Takes the status of every child, as programs with children of unknown origin do.
fn reap(stop: &AtomicBool, reaped: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => thread::yield_now(),
            Ok(_) => {
                reaped.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => return,
        }
    }
}

/// Everything of this process that the library might have changed.
fn of_process() -> Value {
    await_last_thread();
    let link = |path: &str| fs::read_link(path).map(|to| to.display().to_string()).ok();
    let mut open: Vec<String> = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        // The directory itself is among them and gone by now.
        .filter_map(|entry| {
            Some(format!("{:?} {:?}", entry.file_name(), fs::read_link(entry.path()).ok()?))
        })
        .collect();
    open.sort();
    let environment: BTreeMap<_, _> = std::env::vars_os()
        .map(|(k, v)| (k.to_string_lossy().into_owned(), v.to_string_lossy().into_owned()))
        .collect();
    let children = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let children: Vec<String> = children
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let oom = fs::read_to_string("/proc/self/oom_score_adj").ok();
    json!({
        "cwd": link("/proc/self/cwd"),
        "root": link("/proc/self/root"),
        "descriptors": open,
        "environment": environment,
        "children": children,
        "oom_score_adj": oom,
        "dumpable": nix::sys::prctl::get_dumpable().ok(),
        "subreaper": nix::sys::prctl::get_child_subreaper().ok(),
        "mounts": fs::read_to_string("/proc/self/mountinfo").ok().map(|text| text.lines().count()),
        "cgroup": fs::read_to_string("/proc/self/cgroup").ok(),
        "limits": fs::read_to_string("/proc/self/limits").ok(),
        "threads": status("/proc/self/status", &["Threads"]),
        "thread": of_thread(),
    })
}

/// A thread that was joined may be there for a moment more.
fn await_last_thread() {
    let deadline = Instant::now() + Duration::from_secs(5);
    let threads = || fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    while threads() > 1 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
}

/// What each thread has of its own: its namespaces, credentials and signals, and the umask.
fn of_thread() -> Value {
    let namespaces: BTreeMap<String, String> = fs::read_dir("/proc/thread-self/ns")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let to = fs::read_link(entry.path()).ok()?;
            Some((entry.file_name().display().to_string(), to.display().to_string()))
        })
        .collect();
    let keys = [
        "Umask",
        "Uid",
        "Gid",
        "Groups",
        "SigBlk",
        "SigIgn",
        "SigCgt",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
    ];
    json!({"namespaces": namespaces, "status": status("/proc/thread-self/status", &keys)})
}

/// Some fields of proc_pid_status(5).
fn status(path: &str, keys: &[&str]) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| keys.contains(key))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}
