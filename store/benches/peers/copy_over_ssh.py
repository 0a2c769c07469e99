"""Copies over a slow link: the first version to a host that has nothing, the second to one that has the first, and the second again."""

import glob
import re

from measure import run
from network import NEAR

FIRST, UPDATE, NOTHING = "first copy", "update copy", "copy of nothing new"


def copies(samples, programs, trees, place, network, served):
    """The programs that copy; what they prepare ahead is not measured."""
    first, second = trees

    def measured(work, program, command, *, side=network.near, environment=None, **more):
        before = network.wire_bytes()
        sample = run(command, prefix=side, environment=environment)
        wire = network.wire_bytes() - before
        if program == "sarsen":
            # What the protocol itself took, without ssh.
            out, back = re.search(r" out (\d+) in (\d+) ", sample.output).groups()
            more["protocol"] = int(out) + int(back)
        samples.sample(work, program, sample, wire=wire, **more)

    def sarsen():
        store, target = place / "sarsen", place / "sarsen-far"
        objects = [run([programs.store, "add", store, "tree", tree]).output.split()[-1] for tree in (first, second)]
        for work, thing in ((FIRST, objects[0]), (UPDATE, objects[1]), (NOTHING, objects[1])):
            far = [*network.ssh, str(programs.transfer), "receive", str(target)]
            measured(work, "sarsen", [programs.transfer, "send", store, thing, "--", *far])

    def tar():
        target = place / "tar-far"
        target.mkdir()
        measured(FIRST, "tar | zstd -3 | ssh", ["bash", "-o", "pipefail", "-c",
                 f"tar -C {first} -cf - . | zstd -q -3 -T0 | {' '.join(network.ssh)} 'zstd -dqc | tar -C {target} -xf -'"])

    def nix():
        source, target = place / "nix", place / "nix-far"
        configuration = place / "nix-configuration"
        configuration.mkdir()
        (configuration / "nix.conf").write_text(
            "build-users-group =\nsandbox = false\nsubstituters =\nexperimental-features = nix-command\n")
        environment = {"NIX_CONF_DIR": str(configuration), "NIX_REMOTE": "", "HOME": str(place), "NIX_SSHOPTS": " ".join(network.ssh[1:-1])}
        far = place / "nix-store"
        far.write_text(f'#!/bin/sh\nexport NIX_CONF_DIR={configuration} HOME={place}\nexec nix-store "$@" --store {target}\n')
        far.chmod(0o755)
        paths = [run(["nix-store", "--store", source, "--add", *sorted(glob.glob(f"{tree}/*"))], environment=environment).output.split()
                 for tree in (first, second)]
        for work, version in ((FIRST, 0), (UPDATE, 1), (NOTHING, 1)):
            measured(work, "nix copy", ["nix", "copy", "--no-check-sigs", "--store", source, "--to", f"ssh://far?remote-program={far}",
                                        *paths[version]], environment=environment)

    def ostree():
        prepared, target = served / "ostree", place / "ostree-far"
        run(["ostree", f"--repo={target}", "init", "--mode=bare"])
        run(["ostree", f"--repo={target}", "config", "set", "core.fsync", "false"])
        run(["ostree", f"--repo={target}", "remote", "add", "--no-gpg-verify", "near", f"http://{NEAR}:8080/ostree"])
        run(["ostree", f"--repo={target}", "pull-local", "--remote=near", prepared, "v1"])
        for work in (UPDATE, NOTHING):
            measured(work, "ostree pull of a static delta",
                     ["ostree", f"--repo={target}", "pull", "--require-static-deltas", "near", "v2"], side=network.far)

    return [sarsen, tar, nix, ostree]


def prepare_ostree(served, trees):
    """The archive and the static delta that ostree pulls from; made once, as a publisher would."""
    repository = served / "ostree"
    if not (repository / "summary").exists():
        run(["ostree", f"--repo={repository}", "init", "--mode=archive"])
        run(["ostree", f"--repo={repository}", "config", "set", "core.fsync", "false"])
        for name, tree in zip(("v1", "v2"), trees):
            run(["ostree", f"--repo={repository}", "commit", "-b", name, f"--tree=dir={tree}"])
        run(["ostree", f"--repo={repository}", "static-delta", "generate", "--from=v1", "--to=v2"])
        run(["ostree", f"--repo={repository}", "summary", "-u"])
