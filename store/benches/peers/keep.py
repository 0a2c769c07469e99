"""What a store does on one machine: taking trees in, for the first time, unchanged and one version on, and collecting."""

import os
import random
import shutil

from measure import run, shell, size_of

# One profile of as many generations, each of as many files, five in a hundred other than in the one before.
GENERATIONS = 200
GENERATION_FILES = 200


def nix_environment(root):
    """A Nix of our own, without daemon, sandbox and network."""
    (root / "etc").mkdir(parents=True, exist_ok=True)
    (root / "etc/nix.conf").write_text("build-users-group =\nsandbox = false\nsubstituters =\nexperimental-features = nix-command\n")
    return {"NIX_STORE_DIR": f"{root}/store", "NIX_STATE_DIR": f"{root}/var", "NIX_LOG_DIR": f"{root}/log", "NIX_CONF_DIR": f"{root}/etc",
            "NIX_REMOTE": "", "HOME": f"{root}/home"}


def ingest(samples, programs, corpus, trees, place):
    """Each program takes in the first version, the first again, then the second."""
    first, second = trees
    cold, warm, next_version = (f"{corpus}, {work}" for work in ("cold", "unchanged", "next version"))

    def sarsen():
        store = place / "sarsen"
        samples.sample(cold, "sarsen", run([programs.store, "add", store, "tree", first]))
        samples.sample(warm, "sarsen", run([programs.store, "add", store, "tree", first]))
        grown(store, "sarsen", lambda: run([programs.store, "add", store, "tree", second]))

    def nix():
        environment = nix_environment(place / "nix")
        add = lambda tree: run(["nix-store", "--add", tree], environment=environment)
        samples.sample(cold, "nix-store --add", add(first))
        samples.sample(warm, "nix-store --add", add(first))
        grown(place / "nix", "nix-store --add", lambda: add(second))

    def ostree():
        repository = place / "ostree"
        run(["ostree", f"--repo={repository}", "init", "--mode=bare"])
        commit = lambda tree: run(["ostree", f"--repo={repository}", "commit", "-b", "main", f"--tree=dir={tree}"])
        samples.sample(cold, "ostree commit bare", commit(first))
        samples.sample(warm, "ostree commit bare", commit(first))
        run(["ostree", f"--repo={repository}", "checkout", "-H", "main", repository / "first"])
        committed = grown(repository, "ostree commit bare", lambda: commit(second))
        # Our objects can be run from; with ostree that takes a checkout.
        checked_out = grown(repository, "ostree checkout -H", lambda: run(
            ["ostree", f"--repo={repository}", "checkout", "-H", "main", repository / "second"]))
        samples.add(next_version, "ostree commit and checkout", {
            figure: committed[figure] + checked_out[figure] for figure in ("cpu", "wall", "disk", "files", "inodes")})

    def git():
        environment = {"GIT_DIR": f"{place}/git", "GIT_WORK_TREE": str(first), "GIT_CONFIG_GLOBAL": "/dev/null"}
        run(["git", "init", "-q", "--bare", place / "git"])
        for setting in ("core.bare=false", "core.fsync=none", "core.bigFileThreshold=16m", "gc.auto=0"):
            run(["git", "config", *setting.split("=")], environment=environment)
        add = lambda: shell("git add -A -f . && git write-tree", environment=environment, directory=first)
        samples.sample(cold, "git add", add())
        samples.sample(warm, "git add", add())

    def copy():
        samples.sample(cold, "cp -a", run(["cp", "-a", first, place / "copy"]))

    def grown(store, program, add):
        before = size_of(store)
        sample = add()
        growth = size_of(store) - before
        figures = {"disk": growth.disk, "files": growth.files, "inodes": growth.inodes}
        samples.sample(next_version, program, sample, **figures)
        return {"cpu": sample.cpu, "wall": sample.wall, **figures}

    return [sarsen, nix, ostree, git, copy]


def collect(samples, programs, place):
    """Each program has the same generations, forgets the older half of them, and collects."""
    source = place / "generations"
    _make_generations(source)
    work, idle = "collection of half", "collection of nothing"

    def sarsen():
        store = place / "sarsen"
        run([programs.store, "generations", store, source])
        run([programs.store, "drop", store, str(GENERATIONS // 2)])
        samples.sample(work, "sarsen", run([programs.store, "gc", store]))
        samples.sample(idle, "sarsen", run([programs.store, "gc", store]))

    def ostree():
        repository = place / "ostree"
        (place / "checkouts").mkdir()
        run(["ostree", f"--repo={repository}", "init", "--mode=bare"])
        run(["ostree", f"--repo={repository}", "config", "set", "core.fsync", "false"])
        for number in range(GENERATIONS):
            run(["ostree", f"--repo={repository}", "commit", "-b", f"gen/{number}", f"--tree=dir={source}/{number}"])
            run(["ostree", f"--repo={repository}", "checkout", "-H", f"gen/{number}", place / "checkouts" / str(number)])
        old = range(GENERATIONS // 2)
        run(["ostree", f"--repo={repository}", "refs", "--delete", *(f"gen/{number}" for number in old)])
        removed = run(["rm", "-rf", *(place / "checkouts" / str(number) for number in old)])
        prune = lambda: run(["ostree", f"--repo={repository}", "prune", "--refs-only"])
        pruned = prune()
        samples.sample(work, "ostree prune", pruned)
        samples.add(work, "ostree prune and rm -rf of the checkouts", {"cpu": pruned.cpu + removed.cpu, "wall": pruned.wall + removed.wall})
        samples.sample(idle, "ostree prune", prune())

    return [sarsen, ostree]


def _make_generations(source):
    shutil.rmtree(source, ignore_errors=True)
    chance = random.Random(7)
    for number in range(GENERATIONS):
        directory = source / str(number)
        directory.mkdir(parents=True)
        for index in range(GENERATION_FILES):
            path = directory / f"file-{index:03}"
            if number and chance.random() > 0.05:
                os.link(source / str(number - 1) / path.name, path)
            else:
                path.write_bytes(chance.randbytes(chance.choice((300, 2000, 9000))))
