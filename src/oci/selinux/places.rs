//! What of the host is never given another label, whoever asks. Pure.

use std::path::Path;

/// Directories whose labels the host itself depends on: only something below them can be meant.
const SYSTEM: [&str; 25] = [
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/libx32", "/media",
    "/mnt", "/opt", "/root", "/run", "/sbin", "/srv", "/tmp", "/usr", "/usr/bin", "/usr/lib",
    "/var", "/var/lib", "/var/log", "/var/tmp",
];

/// In these nothing is meant for a container.
const WHOLE: [&str; 5] = ["/boot", "/dev", "/proc", "/sys", "/etc/selinux"];

/// Whether a volume's source, without symbolic links, is to keep its label.
pub fn is_refused(source: &Path) -> bool {
    let whole = WHOLE.iter().any(|place| source.starts_with(place));
    // Somebody's home, with the keys that let them in.
    let home = source.parent() == Some(Path::new("/home"));
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
        ] {
            assert!(is_refused(Path::new(path)), "{path}");
        }
        for path in [
            "/srv/data",
            "/home/alice/project",
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
