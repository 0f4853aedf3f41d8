#!/usr/bin/env python3
"""Times `carboy image load` beside its peers, on one layer of real files.

    cargo build --release && cargo build --release --example unpack_limits
    benches/image_load.py DIRECTORY [ROUNDS]

DIRECTORY is on the disk to be measured and must not exist. As root; needs umoci, skopeo, podman,
gzip, zstd and GNU tar. The tools take turns, so that a change of the machine's load meets all of
them; what is written is the median and the least of each. Nothing is left behind.
"""

import hashlib, json, os, pathlib, platform, shutil, statistics, subprocess, sys, time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
BYTES, FILES = 205_000_000, 15_000


def run(*words, **rest):
    return subprocess.run([str(word) for word in words], check=True, **rest)


def built(name):
    for place in sorted(REPOSITORY.glob(f"target/**/release/{name}")):
        if os.access(place, os.X_OK) and "deps" not in place.parts:
            return place
    sys.exit(f"{name} is not built: see the head of this file")


def collect(to):
    """Real files of this machine, links included, up to the wanted number and size."""
    size, count, names, tops = 0, 0, [], set()
    for top, directories, files in os.walk("/usr"):
        directories.sort()
        for file in sorted(files):
            path = os.path.join(top, file)
            about = os.lstat(path)
            # Large ones would fill the layer alone.
            if about.st_size > 1_000_000 or size + about.st_size > BYTES or count == FILES:
                continue
            size, count = size + about.st_size, count + 1
            if top not in tops:
                tops.add(top)
                names.append(top)
            names.append(path)
    listing = to.with_suffix(".list")
    listing.write_bytes(b"\0".join(os.fsencode(name) for name in names))
    run("tar", "--no-recursion", "--null", "--format=posix", "--numeric-owner", "-C", "/",
        f"--files-from={listing}", "-cf", to, stderr=subprocess.DEVNULL)
    listing.unlink()
    return size, count, len(tops)


def digest(path):
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def layout(to, tar, blob):
    (to / "blobs/sha256").mkdir(parents=True)

    def put(path):
        name = digest(path)
        shutil.copy(path, to / "blobs" / name.replace(":", "/"))
        return {"digest": name, "size": path.stat().st_size}

    def document(value):
        path = to / "document"
        path.write_text(json.dumps(value))
        described = put(path)
        path.unlink()
        return described

    kind = "application/vnd.oci.image."
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    config = document({"architecture": machine, "os": "linux", "config": {"Cmd": ["/x"]},
                       "rootfs": {"type": "layers", "diff_ids": [digest(tar)]}})
    form = "layer.v1.tar+gzip" if blob.suffix == ".gz" else "layer.v1.tar+zstd"
    manifest = document({"schemaVersion": 2, "mediaType": kind + "manifest.v1+json",
                         "config": {"mediaType": kind + "config.v1+json", **config},
                         "layers": [{"mediaType": kind + form, **put(blob)}]})
    index = {"schemaVersion": 2, "manifests": [{"mediaType": kind + "manifest.v1+json", **manifest,
             "annotations": {"org.opencontainers.image.ref.name": "bench"}}]}
    (to / "index.json").write_text(json.dumps(index))
    (to / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def timed(command):
    """Seconds, of the processor too, and the peak of the command's own resident memory in MiB (VmHWM)."""
    start = time.monotonic()
    pid = os.posix_spawnp(command[0], [str(word) for word in command], os.environ, file_actions=[
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0)])
    peak = 0
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                peak = int(line.split()[1]) / 1024
        time.sleep(0.005)
    seconds = time.monotonic() - start
    _, status, used = os.wait4(pid, 0)
    return seconds, used.ru_utime + used.ru_stime, peak, status


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    # What is removed only at the end: ext4 makes files slowly where many were just removed.
    work, rounds = pathlib.Path(sys.argv[1]).resolve(), int((sys.argv[2:] or ["7"])[0])
    carboy, limits = built("carboy"), built("examples/unpack_limits")
    work.mkdir()
    os.environ["TMPDIR"] = str(work)
    try:
        bench(work, rounds, carboy, limits)
    finally:
        # podman keeps its storage mounted on itself.
        for mounted in work.glob("*/root/overlay"):
            subprocess.run(["umount", "--lazy", mounted], stderr=subprocess.DEVNULL)
        shutil.rmtree(work)


def tools(carboy, image, archive, form, out):
    """Each tool's command, with a place of its own."""
    places = [pathlib.Path(f"{out}-{number}") for number in range(4)]
    for place in places:
        place.mkdir()
    own, podman, umoci, skopeo = places
    storage = ["--root", podman / "root", "--runroot", podman / "run", "--storage-driver", "overlay"]
    found = {
        "carboy image load": [carboy, "--root", own, "--state", own / "state", "image", "load", archive],
        "podman load": ["podman", *storage, "load", "-i", archive],
    }
    if form == "gzip":  # umoci 0.4.7 reads no zstd.
        copy = (f"skopeo copy -q oci-archive:{archive} oci:{skopeo}/copy:bench &&"
                f" umoci unpack --image {skopeo}/copy:bench {skopeo}/bundle")
        found["umoci unpack"] = ["umoci", "unpack", "--image", f"{image}:bench", umoci / "bundle"]
        found["skopeo copy, umoci unpack"] = ["sh", "-c", copy]
    return found


def bench(work, rounds, carboy, limits):
    tar, out = work / "layer.tar", work / "out"
    size, files, others = collect(tar)
    print(f"{files} files of {size / 1e6:.0f} MB and {others} directories, tar {tar.stat().st_size / 1e6:.0f} MB")
    for name, compress in [("gzip", ["gzip", "-k6n"]), ("zstd", ["zstd", "-q3k"])]:
        run(*compress, tar)
        blob = tar.with_suffix(".tar.gz" if name == "gzip" else ".tar.zst")
        image, archive = work / "image", work / "image.tar"
        layout(image, tar, blob)
        run("tar", "-C", image, "-cf", archive, ".")
        times, work_done, memory, alone = {}, {}, {}, {}
        for turn in range(rounds + 1):
            for tool, command in tools(carboy, image, archive, name, work / f"{name}-{turn}").items():
                os.sync()
                seconds, processor, peak, status = timed(command)
                if status != 0:
                    sys.exit(f"{tool} failed")
                if turn > 0:  # The first warms the page cache.
                    times.setdefault(tool, []).append(seconds * 1000)
                    work_done.setdefault(tool, []).append(processor * 1000)
                    memory.setdefault(tool, []).append(peak)
            out = work / f"{name}-{turn}-limits"
            out.mkdir()
            os.sync()
            for line in run(limits, blob, files, out, stdout=subprocess.PIPE, text=True).stdout.splitlines():
                spent, what = line.split(" ", 1)
                alone.setdefault(what, []).append(float(spent))
        print(f"\n{name}, blob {blob.stat().st_size / 1e6:.0f} MB; milliseconds, median of {rounds} rounds (least)")
        own = statistics.median(times["carboy image load"])
        for tool, spent in times.items():
            middle = statistics.median(spent)
            print(f"  {tool:28} {middle:6.0f} ({min(spent):.0f})  x{middle / own:.2f}  processor {statistics.median(work_done[tool]):.0f}  VmHWM {max(memory[tool]):.0f} MiB")
        for what, spent in alone.items():
            print(f"  alone: {what:21} {statistics.median(spent):6.0f} ({min(spent):.0f})  x{statistics.median(spent) / own:.2f}")
        shutil.rmtree(image)
        archive.unlink()
        blob.unlink()


main()
