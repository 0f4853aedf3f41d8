# PID 1 of a test host: mounts what makes the namespaces a host of their own, then reaps orphans
# until its standard input closes, which it does when the test process ends in any way.
# Arguments: the file systems of /sys/fs/cgroup, as MOUNTPOINT OPTIONS pairs (OPTIONS is - for v2).
set -euo pipefail

# /proc still shows the machine's own numbers here: this is the pid nsenter needs.
read -r pid _ </proc/self/stat

mount -t proc proc /proc
# The machine's /sys shows its own devices and, below, its own cgroups.
umount --recursive --lazy /sys
mount -t sysfs sysfs /sys
if [[ $1 != /sys/fs/cgroup ]]; then
    mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
fi
while (($# > 0)); do
    mkdir -p "$1"
    if [[ $2 == - ]]; then
        mount -t cgroup2 cgroup2 "$1"
    else
        mount -t cgroup -o "$2" cgroup "$1"
    fi
    shift 2
done

# Empty at the start, as after a boot, and gone with the mount namespace. A file system in memory
# can carry overlay upper directories where the machine's own root is an overlay itself.
for dir in /run /var/lib; do
    mount -t tmpfs -o mode=755 tmpfs "$dir"
done
# The machine's own settings must not reach a test.
if [[ -d /etc/carboy ]]; then
    mount -t tmpfs -o mode=755 tmpfs /etc/carboy
fi
ip link set lo up

echo "ready $pid"
while read -r _; do :; done
