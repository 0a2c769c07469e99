"""Two hosts in network namespaces of their own, with a slow link between them, an ssh server on one and a web server on the other.

Nothing leaves the namespaces. `near` runs the programs that copy, `far` is where they copy to.
"""

import contextlib
import json
import os
import subprocess
import time

NEAR, FAR = "10.78.0.1", "10.78.0.2"
DELAY_MILLISECONDS = 10  # one way, so a round trip takes 20
RATE_MEGABITS = 100
QUEUE_KIBIBYTES = 256
PATIENCE_SECONDS = 20


class Network:
    """A running link. `near` and `far` are command prefixes that enter the hosts, `ssh` is a command that reaches far from near."""

    def __init__(self, directory):
        self.directory = directory
        self.near = ["nsenter", "--net=/run/netns/sarsen-near"]
        self.far = ["nsenter", "--net=/run/netns/sarsen-far"]
        self.ssh = ["ssh", "-F", f"{directory}/ssh_config", "far"]
        self.processes = []

    def wire_bytes(self):
        """All bytes on the link so far, both ways, with everything that ssh, TCP and Ethernet add."""
        text = subprocess.run(["ip", "-n", "sarsen-near", "-s", "-j", "link", "show", "dev", "sarsen0"],
                              check=True, stdout=subprocess.PIPE).stdout
        counters = json.loads(text)[0]["stats64"]
        return counters["tx"]["bytes"] + counters["rx"]["bytes"]


@contextlib.contextmanager
def up(directory, served):
    """Brings the hosts up; `served` is what near's web server shows."""
    directory.mkdir(parents=True, exist_ok=True)
    network = Network(directory)
    try:
        _link(network)
        _ssh(network)
        _web(network, served)
        yield network
    finally:
        for process in reversed(network.processes):
            process.terminate()
            process.wait(PATIENCE_SECONDS)
        for name in ("near", "far"):
            subprocess.run(["ip", "netns", "del", f"sarsen-{name}"], stderr=subprocess.DEVNULL, check=False)


def _link(network):
    program = network.directory / "link"
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "link.c")
    subprocess.run(["cc", "-O2", "-Wall", "-o", program, source], check=True)
    link = subprocess.Popen([program, "sarsen0", "sarsen1", str(DELAY_MILLISECONDS), str(RATE_MEGABITS), str(QUEUE_KIBIBYTES)],
                            stdout=subprocess.PIPE, start_new_session=True)
    network.processes.append(link)
    assert link.stdout.readline() == b"ready\n", "the link did not come up"
    for name, device, address in (("near", "sarsen0", NEAR), ("far", "sarsen1", FAR)):
        namespace = f"sarsen-{name}"
        for command in (["netns", "add", namespace], ["link", "set", device, "netns", namespace],
                        ["-n", namespace, "link", "set", "lo", "up"], ["-n", namespace, "addr", "add", f"{address}/24", "dev", device],
                        ["-n", namespace, "link", "set", device, "up"]):
            subprocess.run(["ip", *command], check=True)


def _ssh(network):
    place = network.directory
    home = place / "home"  # empty: a login reads no files of the user's
    home.mkdir(exist_ok=True)
    os.makedirs("/run/sshd", exist_ok=True)
    for key in ("host", "user"):
        if not (place / key).exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / key], check=True)
    (place / "authorized_keys").write_text((place / "user.pub").read_text())
    (place / "known_hosts").write_text(f"{FAR} {(place / 'host.pub').read_text()}")
    (place / "sshd_config").write_text("\n".join([
        f"ListenAddress {FAR}", f"HostKey {place}/host", f"AuthorizedKeysFile {place}/authorized_keys", f"PidFile {place}/sshd.pid",
        "PasswordAuthentication no", "KbdInteractiveAuthentication no", "PermitRootLogin prohibit-password", "UsePAM no",
        "StrictModes no", f"SetEnv HOME={home}", ""]))
    (place / "ssh_config").write_text("\n".join([
        "Host far", f"  HostName {FAR}", "  User root", f"  IdentityFile {place}/user", "  IdentitiesOnly yes",
        f"  UserKnownHostsFile {place}/known_hosts", "  GlobalKnownHostsFile /dev/null", "  StrictHostKeyChecking yes",
        "  BatchMode yes", "  LogLevel ERROR", ""]))
    network.processes.append(subprocess.Popen([*network.far, "/usr/sbin/sshd", "-D", "-f", place / "sshd_config"], start_new_session=True))
    _until(lambda: subprocess.run([*network.near, *network.ssh, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0)


def _web(network, served):
    place = network.directory
    (place / "nginx.conf").write_text(f"""
        user root; worker_processes 1; daemon off; pid {place}/nginx.pid; error_log {place}/nginx.log;
        events {{ worker_connections 256; }}
        http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000; client_body_temp_path {place}/nginx;
          proxy_temp_path {place}/nginx; fastcgi_temp_path {place}/nginx; uwsgi_temp_path {place}/nginx; scgi_temp_path {place}/nginx;
          server {{ listen {NEAR}:8080; root {served}; }} }}
    """)
    network.processes.append(subprocess.Popen([*network.near, "nginx", "-c", place / "nginx.conf"], start_new_session=True))
    _until((place / "nginx.pid").exists)


def _until(condition):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("a server did not come up")
        time.sleep(0.05)
