#!/usr/bin/env bash
# In the machine: the unit that `generate systemd` writes, one of Type=notify, and whether systemd, which
# believes that all control groups are its own, lets a bundle keep its limits.
set -euxo pipefail

carboy=$(echo "$(dirname "$0")"/../../target/*/debug/carboy)
carboy=$(realpath "$carboy")
limits=(--memory 64m --cpus 0.5 --device-write-bps /dev/vda:1m)
group=/sys/fs/cgroup/carboy.claude-bottle-sidecars-unit/container

"$carboy" generate systemd unit "${limits[@]}" >/etc/systemd/system/carboy-unit.service
systemd-analyze verify /etc/systemd/system/carboy-unit.service
systemctl daemon-reload
systemctl start carboy-unit
systemctl is-active carboy-unit
address=$("$carboy" --json inspect unit | grep -o '"bundle_ip":"[^"]*"' | cut -d'"' -f4)
curl --fail --silent --show-error --max-time 20 "http://$address:9000/"
[[ $(<"$group/cpu.max") == "50000 100000" ]]

# Whatever systemd does to its own groups, and it does it to the root's controllers, too.
keep() {
    [[ $(<"$group/memory.max") == $((64 << 20)) ]]
    [[ $(<"$group/cpu.max") == "50000 100000" ]]
    [[ $(<"$group/io.max") == *wbps=1048576* ]]
}
systemctl daemon-reload
keep
systemd-run --wait --collect -p CPUWeight=50 -p IOWeight=50 true
keep
systemctl daemon-reexec
systemd-run --wait --collect true
keep
systemctl restart systemd-journald
keep

# A unit's end is not the bundle's unless it is `down` that ends it.
pid=$("$carboy" --json inspect unit | grep -o '"pid":[0-9]*' | cut -d: -f2)
[[ $(<"/proc/$pid/cgroup") == 0::/carboy.claude-bottle-sidecars-unit/container ]]
systemctl stop carboy-unit
[[ ! -e /proc/$pid ]]
[[ ! -e $group ]]

# `up` tells when the bottle is ready, to whom asks it to.
systemd-run --unit carboy-notify --service-type notify -p NotifyAccess=all -p RemainAfterExit=yes \
    -p KillMode=process bash -c "$carboy up unit && sleep 1000"
systemctl is-active carboy-notify
systemctl show -p StatusText carboy-notify
systemctl kill --kill-whom=main carboy-notify
"$carboy" verify unit
"$carboy" down unit
systemctl stop carboy-notify || true
systemctl reset-failed carboy-notify || true
rm /etc/systemd/system/carboy-unit.service
systemctl daemon-reload
