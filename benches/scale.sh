#!/usr/bin/env bash
# What one more bottle costs where there are many: network create and rm, plan, up and down, and the
# round-trip time to a bundle, with 1, 100 and 500 networks in one run. Needs root; works in
# namespaces of its own and leaves nothing behind.
#
# usage: benches/scale.sh /path/to/carboy [networks…]
set -euo pipefail

if [[ ${CARBOY_BENCH_INSIDE:-} != yes ]]; then
    CARBOY_BENCH_INSIDE=yes exec unshare --net --mount --pid --cgroup --fork --kill-child --mount-proc \
        bash "$0" "$(realpath "$1")" "${@:2}"
fi

carboy=$1
shift
(($# > 0)) || set -- 1 100 500
mount -t tmpfs -o mode=755 tmpfs /run
ip link set lo up
export CARBOY_ROOT=/run/root

# The median of 9 runs in milliseconds; what stands before -- runs after each, not timed.
median() {
    local undo=()
    while [[ $1 != -- ]]; do undo+=("$1"); shift; done
    shift
    for _ in 1 2 3 4 5 6 7 8 9; do
        local start=${EPOCHREALTIME/./}
        "$@" >/dev/null
        echo $((${EPOCHREALTIME/./} - start))
        if ((${#undo[@]} > 0)); then "${undo[@]}" >/dev/null; fi
    done | sort -n | awk 'NR == 5 { printf "%.1f", $1 / 1000 }'
}

# What it takes to make something, and to remove it.
pair() {
    local make=$1 undo=$2
    local there back
    there=$(median bash -c "$undo" -- bash -c "$make")
    bash -c "$make" >/dev/null
    back=$(median bash -c "$make" -- bash -c "$undo")
    bash -c "$undo" >/dev/null
    echo "$there | $back"
}

# The control groups are the machine's own: what is left in them would stay.
trap '"$carboy" down -f probe one-more >/dev/null' EXIT
"$carboy" up probe >/dev/null
ip=$("$carboy" port probe 9000)
ip=${ip%%:*}
echo "| networks | network create, ms | network rm, ms | plan, ms | up, ms | down, ms | RTT, µs |"
echo "|---|---|---|---|---|---|---|"
made=1
for count in "$@"; do
    for ((; made < count; made++)); do
        "$carboy" network create --subnet "10.$((made / 256)).$((made % 256)).0/24" "net-$made" >/dev/null
    done
    networks=$(pair "$carboy network create one-more" "$carboy network rm one-more")
    plan=$(median -- "$carboy" plan one-more)
    bottles=$(pair "$carboy up one-more" "$carboy down -f one-more")
    rtt=$(ping -q -c 400 -i 0.002 "$ip" | awk -F/ '/^rtt/ { printf "%.0f", $5 * 1000 }')
    echo "| $count | $networks | $plan | $bottles | $rtt |"
done
