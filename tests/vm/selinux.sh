#!/usr/bin/env bash
# In a machine whose kernel enforces SELinux (FOR=selinux of run.sh): the labels of bundles, and what they
# keep out. Wants the distribution's own policy and nothing else.
set -euo pipefail

# An administrator's shell; a job of systemd's is in another domain.
if [[ $(id -Z) != unconfined_u:* ]]; then
    exec runcon unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023 /bin/bash "$0" "$@"
fi
here=$(realpath "$(dirname "$0")")
set -x
[[ $(getenforce) == Enforcing ]]
install -m 755 "$(echo "$here"/../../target/*/debug/carboy)" /usr/local/bin/carboy
restorecon /usr/local/bin/carboy
carboy=/usr/local/bin/carboy

# Something to go out by: the machine has no network.
ip link add uplink type veth peer name outside
ip addr add 10.9.0.2/24 dev uplink
ip link set outside up
ip link set uplink up
ip route replace default via 10.9.0.1 dev uplink
before=$(find /sys/fs/cgroup -maxdepth 1 -type d | sort; ip -br link; nft list ruleset)

trial=/srv/trial
mkdir -p "$trial"/image/{bin,etc,tmp} "$trial"/{plain,shared,private,deep}
cp /usr/bin/busybox "$trial/image/bin/busybox"
"$trial/image/bin/busybox" --install -s "$trial/image/bin"
for link in "$trial"/image/bin/*; do
    [[ ! -L $link ]] || ln -sf busybox "$link"
done
"$carboy" image load "rootfs:$trial/image" --name trial:1 --entrypoint /bin/sleep --cmd 100000

field() { # BOTTLE NAME: a field of inspect
    "$carboy" inspect "$1" | tr -d '\n' | grep -o "\"$2\": *[^,}]*" | head -n 1 | sed 's/^[^:]*: *//; s/"//g'
}
labels() { # BOTTLE: both of its labels
    "$carboy" inspect "$1" | sed -n 's/^ *"\(file\|process\)": "\(.*:container_.*\)",\?$/\2/p'
}
current() { # PID
    tr -d '\0' <"/proc/$1/attr/current"
}
run() { # BOTTLE COMMAND: in a shell inside
    "$carboy" exec "$1" -- /bin/sh -c "$2"
}
denied() { # a command that must fail
    if "$@"; then
        echo "allowed: $*" >&2
        return 1
    fi
}

# --- processes and files have the label, with a pair of categories of the bundle's own ------------------

"$carboy" up health
curl --fail --silent --show-error --max-time 60 "http://$(field health bundle_ip):9000/"
[[ $("$carboy" logs health) == *listening* ]]
"$carboy" verify health

volumes=(-v "$trial/plain:/plain" -v "$trial/shared:/shared:z" -v "$trial/private:/private:Z")
echo host >"$trial/plain/file"
echo shared >"$trial/shared/file"
echo private >"$trial/private/file"
ln -s /etc/passwd "$trial/shared/link"
echo hidden >/tmp/secret
"$carboy" up one --image trial:1 "${volumes[@]}" --secret "token=/tmp/secret" --tmpfs /cache \
    --health-cmd 'cat /shared/file' --health-interval 2s
process=$(labels one | grep :container_t:)
file=$(labels one | grep :container_file_t:)
[[ $process == system_u:system_r:container_t:s0:c* ]]
[[ $(current "$(field one pid)") == "$process" ]]
[[ $(run one 'cat /proc/self/attr/current' | tr -d '\0') == "$process" ]]
pid=$(field one pid)
for place in / /etc/hosts /dev /dev/null /dev/pts /dev/shm /dev/mqueue /cache /run/secrets /run/secrets/token; do
    [[ $(getfattr --absolute-names --only-values -n security.selinux "/proc/$pid/root$place" | tr -d '\0') == "$file" ]]
done
run one 'cat /etc/hosts /etc/resolv.conf /run/secrets/token && echo x >/root-file && echo x >/cache/x && echo x >/dev/shm/x && ls -l / /dev'
[[ $(echo in | "$carboy" exec -i one -- cat) == in ]]
"$carboy" exec one -- /bin/sh -c 'echo err >&2; echo out'

# --- a volume without a label is out of reach, others are for one or for all -------------------------------

denied run one 'cat /plain/file'
denied run one 'echo x >/plain/new'
run one 'cat /shared/file /private/file && echo one >/shared/one && echo one >/private/one'
shared=${file%:s0:*}:s0
[[ $(stat -c %C "$trial/shared/file") == "$shared" ]]
[[ $(stat -c %C "$trial/private/file") == "$file" ]]
[[ $(stat -c %C "$trial/shared/link") == "$shared" ]]
[[ $(stat -c %C /etc/passwd) == *:etc_t:s0 ]]
"$carboy" up two --image trial:1 "${volumes[@]:0:4}" -v "$trial/private:/private"
other=$(labels two | grep :container_t:)
[[ $other != "$process" ]]
run two 'cat /shared/file /shared/one'
denied run two 'cat /private/file'
# (Debian's policy has denials by categories alone not written down.)
dmesg | grep "avc:  denied .*scontext=$process tcontext=[^ ]*:var_t:s0 .*permissive=0"
# Nor a file of the host's.
"$carboy" up three --image trial:1 -v /etc/shadow:/name:ro
denied run three 'cat /name'
dmesg | grep "avc:  denied .*scontext=$(labels three | grep :container_t:) tcontext=[^ ]*:shadow_t:s0 .*permissive=0"
# Nor another bundle, root inside though it is.
denied run two "cat /proc/$pid/environ"

# --- the same label after a restart, by another monitor, and where the caller asks for one ----------------------

"$carboy" restart one
[[ $(current "$(field one pid)") == "$process" ]]
[[ $(run one 'cat /proc/self/attr/current' | tr -d '\0') == "$process" ]]
[[ $("$carboy" --json up one --image trial:1 "${volumes[@]}" --secret "token=/tmp/secret" --tmpfs /cache \
    --health-cmd 'cat /shared/file' --health-interval 2s) == *'"changed":false'* ]]
for ((i = 0; i < 120; i++)); do
    [[ $("$carboy" inspect one) != *'"healthy"'* ]] || break
    sleep 1
done
[[ $("$carboy" inspect one) == *'"healthy"'* ]]

"$carboy" up init --image trial:1 --init --read-only
[[ $(current "$(field init pid)") == *:container_t:s0:c* ]]
run init 'echo x >/tmp/x'
"$carboy" down init
"$carboy" up free --image trial:1 --security-opt label=disable -v "$trial/plain:/plain"
[[ $(current "$(field free pid)") == unconfined_u:unconfined_r:unconfined_t:* ]]
[[ $("$carboy" inspect free) == *'"selinux": null'* ]]
run free 'cat /plain/file'
"$carboy" down free
"$carboy" up level --image trial:1 --security-opt label=level:s0:c7,c9
[[ $(current "$(field level pid)") == *:container_t:s0:c7,c9 ]]
"$carboy" down level
denied "$carboy" up no --image trial:1 --security-opt label=type:nonsense_t
denied "$carboy" up no --image trial:1 -v /etc:/x:z
# Where a link leads to one.
denied "$carboy" up no --image trial:1 -v /sbin:/x:z
denied "$carboy" inspect no

# One that asked for the categories of another has its volume; that one stays what it is.
"$carboy" up guest --image trial:1 --security-opt "label=level:${file##*:container_file_t:}" -v "$trial/private:/private"
run guest 'cat /private/file'
[[ $("$carboy" --json up one --image trial:1 "${volumes[@]}" --secret "token=/tmp/secret" --tmpfs /cache \
    --health-cmd 'cat /shared/file' --health-interval 2s) == *'"changed":false'* ]]
[[ $(labels one | grep :container_t:) == "$process" ]]
[[ $(run one 'cat /proc/self/attr/current' | tr -d '\0') == "$process" ]]
"$carboy" down guest

# A label in other words than the kernel's: a file that has it is not labelled again.
echo deep >"$trial/deep/file"
words=(up words --image trial:1 --security-opt label=level:s0:c3,c2,c1 -v "$trial/deep:/deep:Z")
"$carboy" "${words[@]}"
[[ $(labels words) == *:container_t:s0:c1.c3* ]]
[[ $(stat -c %C "$trial/deep/file") == *:container_file_t:s0:c1.c3 ]]
changed=$(stat -c %z "$trial/deep/file")
[[ $("$carboy" --json "${words[@]}") == *'"changed":false'* ]]
"$carboy" restart words
run words 'cat /deep/file'
[[ $(stat -c %z "$trial/deep/file") == "$changed" ]]
# A tree that no path can name the end of does not stand in the way of a start.
perl -e 'chdir shift; for (1 .. 40) { mkdir "d" x 200; chdir "d" x 200 or die }' "$trial/deep"
"$carboy" restart words
run words 'cat /deep/file && ls /deep/d*'
[[ $(stat -c %C "$trial"/deep/d*) == *:container_file_t:s0:c1.c3 ]]
"$carboy" down words

# The program of --init is one for all, whatever a bundle asks for.
"$carboy" up common --image trial:1 --init
program=/proc/$(field common pid)/root/.carboy-init
[[ $(stat -c %C "$program") == "$shared" ]]
"$carboy" up other --image trial:1 --init --security-opt label=filetype:container_ro_file_t || true
[[ $(stat -c %C "$program") == "$shared" ]]
"$carboy" down other common

# A program that the policy does not let be one: nothing is claimed, and it is told what may help.
chmod 755 "$trial/plain"
cp "$trial/image/bin/busybox" "$trial/plain/sleep"
said=$(denied "$carboy" up no --image trial:1 -v "$trial/plain:/plain" --entrypoint /plain/sleep 2>&1)
[[ $said == *'perhaps SELinux does not let'*':z'* ]]
denied "$carboy" inspect no
printf '#!/nothing\n' >"$trial/shared/script"
chmod 755 "$trial/shared/script"
said=$(denied "$carboy" exec one -- /shared/script 2>&1)
[[ $said != *SELinux* ]]

# --- a monitor that was killed, a terminal ----------------------------------------------------------------------

kill -9 "$(pgrep -f 'carboy-monitor claude-bottle-sidecars-three ')"
"$carboy" up three --image trial:1 -v /etc/shadow:/name:ro
[[ $(run three 'cat /proc/self/attr/current' | tr -d '\0') == "$(labels three | grep :container_t:)" ]]
[[ $(echo 'tty; exit' | script -qec "$carboy exec -it three -- /bin/sh" /dev/null) == */dev/pts/0* ]]

# --- a policy that has no containers: no labels, and who asks for one is told --------------------------------------

sed 's/container_/nonsense_/' /etc/selinux/default/contexts/lxc_contexts >"$trial/contexts"
mount --bind "$trial/contexts" /etc/selinux/default/contexts/lxc_contexts
"$carboy" up old --image trial:1 -v "$trial/plain:/plain" --security-opt label=disable
denied "$carboy" up no --image trial:1 -v "$trial/plain:/plain:z"
denied "$carboy" up no --image trial:1 --security-opt label=level:s0
"$carboy" down old
"$carboy" up old --image trial:1
[[ $(current "$(field old pid)") == unconfined_u:unconfined_r:unconfined_t:* ]]
"$carboy" down old
umount /etc/selinux/default/contexts/lxc_contexts

# --- started by systemd ----------------------------------------------------------------------------------------------

unit() { # NAME LINES: a service that starts a bundle and looks at it
    printf '[Service]\nType=oneshot\nExecStart=%s up unit --image trial:1\n%s\n' "$carboy" "$2" \
        >"/etc/systemd/system/$1.service"
    restorecon "/etc/systemd/system/$1.service"
    systemctl daemon-reload
}
unit plain ''
denied systemctl start plain
journalctl -o cat -u plain | grep 'SELinux does not let system_u:system_r:initrc_t:s0 become'
unit named SELinuxContext=unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023
systemctl start named
[[ $(current "$(field unit pid)") == *:container_t:s0:c* ]]
"$carboy" down unit
# The policy does not let semodule use what this job has open.
setenforce 0
semodule -i "$here/../../contrib/selinux/carboy.cil"
setenforce 1
systemctl start plain
[[ $(current "$(field unit pid)") == *:container_t:s0:c* ]]
run unit 'echo x >/x'
"$carboy" down unit

# --- ids of its own -----------------------------------------------------------------------------------------------

"$carboy" up ids --image trial:1 --userns=auto -v "$trial/shared:/shared:z"
[[ $(current "$(field ids pid)") == *:container_t:s0:c* ]]
run ids 'cat /proc/self/attr/current /shared/file && echo x >/x && echo x >/dev/null'
"$carboy" down ids

# --- nothing is left ----------------------------------------------------------------------------------------------

for bottle in health one two three; do
    "$carboy" down "$bottle"
done
after=$(find /sys/fs/cgroup -maxdepth 1 -type d | sort; ip -br link; nft list ruleset)
diff <(echo "$before") <(echo "$after")
[[ ! -e /run/carboy ]]
ip link delete uplink
dmesg | grep 'avc:  denied' | grep container_t | sed 's/.*avc: //' | sort | uniq -c | sort -rn | head -n 40 || true
