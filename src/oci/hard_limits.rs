//! Hard resource limits of a helper process, before what it starts enters a user namespace: from
//! there nobody can raise them (CAP_SYS_RESOURCE counts on the host alone, getrlimit(2)).

use libcontainer::oci_spec::runtime::{PosixRlimitType as Name, Process};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises this process' own hard limits to what `process` is to have. What cannot be raised is for
/// the runtime to complain about.
pub(crate) fn raise(process: &Process) {
    for wanted in process.rlimits().iter().flatten() {
        let resource = resource(wanted.typ());
        let Rlimit { current, maximum } = getrlimit(resource);
        // `None` is no limit.
        let enough = maximum.is_none_or(|maximum| wanted.hard() <= maximum);
        if !enough {
            let maximum = (wanted.hard() != libc::RLIM_INFINITY).then_some(wanted.hard());
            let _ = setrlimit(resource, Rlimit { current, maximum });
        }
    }
}

fn resource(name: Name) -> Resource {
    match name {
        Name::RlimitCpu => Resource::Cpu,
        Name::RlimitFsize => Resource::Fsize,
        Name::RlimitData => Resource::Data,
        Name::RlimitStack => Resource::Stack,
        Name::RlimitCore => Resource::Core,
        Name::RlimitRss => Resource::Rss,
        Name::RlimitNproc => Resource::Nproc,
        Name::RlimitNofile => Resource::Nofile,
        Name::RlimitMemlock => Resource::Memlock,
        Name::RlimitAs => Resource::As,
        Name::RlimitLocks => Resource::Locks,
        Name::RlimitSigpending => Resource::Sigpending,
        Name::RlimitMsgqueue => Resource::Msgqueue,
        Name::RlimitNice => Resource::Nice,
        Name::RlimitRtprio => Resource::Rtprio,
        Name::RlimitRttime => Resource::Rttime,
    }
}
