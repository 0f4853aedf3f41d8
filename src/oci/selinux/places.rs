//! What of the host is never given another label, whoever asks. Pure.

use std::path::Path;

/// Directories whose labels the host itself depends on: only something below them can be meant. By the
/// names that are left without links: `/sbin` may be `/usr/sbin`, `/srv` `/var/srv`.
const SYSTEM: [&str; 42] = [
    "/",
    "/bin",
    "/etc",
    "/etc/pki",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/media",
    "/mnt",
    "/opt",
    "/ostree",
    "/root",
    "/run",
    "/run/media",
    "/sbin",
    "/srv",
    "/sysroot",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/libx32",
    "/usr/local",
    "/usr/sbin",
    "/usr/share",
    "/var",
    "/var/cache",
    "/var/home",
    "/var/lib",
    "/var/log",
    "/var/mnt",
    "/var/opt",
    "/var/roothome",
    "/var/spool",
    "/var/srv",
    "/var/tmp",
    "/var/usrlocal",
];

/// In these is somebody's home, with the keys that let them in.
const HOMES: [&str; 2] = ["/home", "/var/home"];

/// In these nothing is meant for a container.
const WHOLE: [&str; 5] = ["/boot", "/dev", "/proc", "/sys", "/etc/selinux"];

/// Whether a volume's source, without symbolic links, is to keep its label.
pub fn is_refused(source: &Path) -> bool {
    let whole = WHOLE.iter().any(|place| source.starts_with(place));
    let home = HOMES.iter().any(|homes| source.parent() == Some(Path::new(homes)));
    let password = ["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow"];
    let account = password.iter().any(|file| source == Path::new(file));
    whole || home || account || SYSTEM.iter().any(|place| source == Path::new(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_own_places_keep_their_labels() {
        for path in [
            "/",
            "/etc",
            "/usr",
            "/home",
            "/root",
            "/var",
            "/tmp",
            "/run",
            "/boot",
            "/boot/grub",
            "/proc",
            "/proc/sys",
            "/sys",
            "/dev",
            "/dev/shm",
            "/home/alice",
            "/etc/shadow",
            "/var/lib",
            "/usr/lib",
            "/usr/sbin",
            "/usr/lib64",
            "/usr/libexec",
            "/usr/local",
            "/etc/pki",
            // Where some systems' links lead: `/home`, `/root`, `/srv`, `/opt`, `/mnt`, `/media`.
            "/var/home",
            "/var/home/alice",
            "/var/roothome",
            "/var/srv",
            "/var/opt",
            "/var/mnt",
            "/run/media",
            "/var/usrlocal",
        ] {
            assert!(is_refused(Path::new(path)), "{path}");
        }
        for path in [
            "/srv/data",
            "/home/alice/project",
            "/var/home/alice/project",
            "/var/srv/data",
            "/usr/local/share/app",
            "/var/lib/app",
            "/tmp/x",
            "/etc/app",
            "/opt/app",
            "/usr/share/app",
            "/run/app.sock",
            "/development",
        ] {
            assert!(!is_refused(Path::new(path)), "{path}");
        }
    }
}
