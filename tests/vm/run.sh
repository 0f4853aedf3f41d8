#!/usr/bin/env bash
# Runs a command on Debian as its users have it: its kernel, systemd, pure cgroup v2, AppArmor or SELinux;
# in a virtual machine without a network. docs/kernels.md says what for.
#
#   tests/vm/run.sh WORKDIR [COMMAND [ARGUMENT…]]
#
# WORKDIR (outside of the repository, 12 GB) keeps the machine's disk between runs. COMMAND runs in the
# machine as root, in the repository; without one all of tests/vm/ and all integration tests run. Its output
# and exit code become this script's. Wants Debian's mmdebstrap, qemu-system-x86, e2fsprogs, and root.
#
#   RELEASE       of Debian (bookworm)
#   FOR           what the machine is for: "tests", or "selinux", which has the policy, labelled files, and
#                 of the tests what tests/vm/selinux.sh calls (tests)
#   KERNEL_ARGS   more for the kernel's command line ("enforcing=0")
#   PACKAGES      more packages, comma-separated
#                 each of these but KERNEL_ARGS is for a WORKDIR of its own
#   MEMORY        of the machine, in MiB (4096)
#   LIMIT         seconds after which the machine is ended (5400)
set -euo pipefail

repository=$(realpath "$(dirname "$0")/../..")
work=$(realpath -m "${1:?usage: tests/vm/run.sh WORKDIR [COMMAND [ARGUMENT…]]}")
shift
if [[ $work/ == "$repository"/* ]]; then
    echo "$work is in the repository: choose a directory outside" >&2
    exit 2
fi
mkdir -p "$work"
cd "$repository"

release=${RELEASE:-bookworm}
purpose=${FOR:-tests}
# A machine that boots, and what tests/vm/ itself calls.
base=linux-image-amd64,initramfs-tools,systemd-sysv,udev,kmod,curl
# What the integration tests call, as README.md lists it, without the compiler.
tests=apparmor,busybox-static,crun,dbus,docker-registry,docker.io,e2fsprogs,firewalld,golang-github-opencontainers-specs-dev,iproute2,iptables,iputils-ping,libcap2-bin,mount,nftables,openssl,podman,procps,python3-jsonschema,runc,skopeo,systemd,umoci,util-linux
# A host with SELinux, and what tests/vm/selinux.sh calls.
selinux=attr,busybox-static,iproute2,mount,nftables,policycoreutils,procps,selinux-basics,selinux-policy-default,selinux-utils,util-linux
case $purpose in
tests) packages=$base,$tests kernel_args= ;;
selinux) packages=$base,$selinux kernel_args="security=selinux selinux=1 enforcing=1" ;;
*)
    echo "FOR=$purpose: there are tests and selinux" >&2
    exit 2
    ;;
esac

# --- the machine's disk -------------------------------------------------------------------------

# Every file below the root of it that is not Debian's.
fill() {
    local root=$1
    # The tests start their own daemons; the machine's would be in the way.
    for unit in docker.service docker.socket containerd.service docker-registry.service firewalld.service \
        podman.service podman.socket podman-auto-update.timer podman-restart.service; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    echo carboy-vm >"$root/etc/hostname"
    echo 'LABEL=carboy-root / ext4 defaults 0 1' >"$root/etc/fstab"
    install -m 755 tests/vm/job.sh "$root/usr/local/sbin/carboy-job"
    cat >"$root/etc/systemd/system/carboy-job.service" <<'UNIT'
[Unit]
Description=The job this machine was started for
After=multi-user.target apparmor.service

[Service]
Type=exec
StandardInput=null
ExecStart=/usr/local/sbin/carboy-job
ExecStopPost=/usr/bin/systemctl --no-block --force poweroff
LimitNOFILE=1048576
UNIT
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
    ln -sf ../carboy-job.service "$root/etc/systemd/system/multi-user.target.wants/"
}

if [[ ! -e $work/root.img ]]; then
    echo "making Debian $release in $work" >&2
    rm -rf "$work/root"
    mmdebstrap --mode=root --variant=minbase --aptopt='APT::Install-Recommends "false"' \
        --include="$packages${PACKAGES:+,$PACKAGES}" "$release" "$work/root" \
        "deb http://deb.debian.org/debian $release main" \
        "deb http://deb.debian.org/debian-security $release-security main"
    fill "$work/root"
    if [[ $purpose == selinux ]]; then
        # As a relabelling at the first boot would; the labels go onto the disk with the files.
        chroot "$work/root" setfiles -F /etc/selinux/default/contexts/files/file_contexts /
    fi
    cp "$work"/root/boot/vmlinuz-* "$work/vmlinuz"
    cp "$work"/root/boot/initrd.img-* "$work/initrd"
    mke2fs -q -t ext4 -L carboy-root -d "$work/root" "$work/root.part" 8G
    mv "$work/root.part" "$work/root.img"
    rm -rf "$work/root"
fi

# --- the tests' disk: what was built, at the paths that were compiled into it -------------------

# carboy itself as users have it; emulated, an unoptimized one is too slow for the tests' patience.
released=$(cargo build --locked --release --bin carboy --message-format json |
    sed -n 's/.*"executable":"\([^"]*\/release\/carboy\)".*/\1/p')
debug=$(dirname "$(dirname "$released")")/debug
tree=$work/tree
rm -rf "$tree" "$work/tree.img"
mkdir -p "$tree/${debug#"$repository"/}"/{deps,examples}
git ls-files -z --cached --others --exclude-standard | tar --null -cf - -T - | tar -xf - -C "$tree"
cp "$released" "$tree/${debug#"$repository"/}/carboy"
if [[ $purpose == tests ]]; then
    cargo build --locked --example embed
    built=$(cargo test --locked --no-run --test it --message-format json |
        sed -n 's/.*"executable":"\([^"]*\/deps\/it-[0-9a-f]*\)".*/\1/p')
    strip --strip-debug -o "$tree/${debug#"$repository"/}/examples/embed" "$debug/examples/embed"
    strip --strip-debug -o "$tree/${debug#"$repository"/}/deps/it" "$built"
fi
mkdir -p "$tree/.vm"
printf '%s\n' "$repository" >"$tree/.vm/path"
# One of the tests has cargo build an example; here it stands already.
rustup which cargo >"$tree/.vm/cargo"
if (($# == 0)); then
    case $purpose in
    tests) set -- tests/vm/all.sh ;;
    selinux) set -- tests/vm/selinux.sh ;;
    esac
fi
printf '%q ' "$@" >"$tree/.vm/command"
mke2fs -q -t ext4 -L carboy-tree -d "$tree" "$work/tree.img" 6G
rm -rf "$tree"

# --- run ------------------------------------------------------------------------------------------

accelerate=(-accel kvm -cpu host)
# There are hosts whose KVM runs only kernels that were changed for it: the processor must do it.
if ! grep -qwE 'vmx|svm' /proc/cpuinfo || [[ ! -w /dev/kvm ]]; then
    echo "the processor does not offer virtualization here: emulated, ten times slower and more" >&2
    accelerate=(-accel "tcg,thread=multi,tb-size=1024" -cpu max)
fi
: >"$work/output"
# no_timer_check: an emulated timer on a busy host fails the kernel's test of it.
timeout "${LIMIT:-5400}" qemu-system-x86_64 "${accelerate[@]}" -smp 2 -m "${MEMORY:-4096}" \
    -nodefaults -no-user-config -display none -no-reboot -nic none \
    -kernel "$work/vmlinuz" -initrd "$work/initrd" \
    -append "root=LABEL=carboy-root rw console=ttyS0 panic=-1 no_timer_check $kernel_args ${KERNEL_ARGS:-}" \
    -drive "file=$work/root.img,format=raw,if=virtio,snapshot=on" \
    -drive "file=$work/tree.img,format=raw,if=virtio,cache=unsafe" \
    -serial "file:$work/console" -device virtio-rng-pci \
    -device virtio-serial -chardev "file,id=output,path=$work/output" \
    -device virtserialport,chardev=output,name=carboy.output &
machine=$!
trap 'kill "$machine" 2>/dev/null || true' EXIT
tail --pid="$machine" -f -c +1 "$work/output"
wait "$machine" || true
code=$(sed -n 's/^=== exit code \([0-9]*\)$/\1/p' "$work/output" | tail -n 1)
if [[ -z $code ]]; then
    echo "the machine ended before its job did; the last lines of $work/console:" >&2
    tail -n 20 "$work/console" >&2
    exit 1
fi
exit "$code"
