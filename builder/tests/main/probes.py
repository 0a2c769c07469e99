"""Runs inside the sandbox: each probe tries a way out, or looks for what must not be there. Prints what succeeded; the exit code is their number.

Each line of the table: a name, and a function that raises, or returns something false, if the sandbox holds.
"""
import ctypes, ctypes.util, errno, fcntl, glob, mmap, os, resource, socket, struct, sys

libc = ctypes.CDLL(None, use_errno=True)
STORE = "/var/lib/sarsen/store"
OUT = os.environ["out"]


def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return True


def succeeded(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return True


def opens(path, flags=os.O_RDONLY):
    return lambda: os.open(path, flags) >= 0


def exists(path):
    return lambda: os.path.lexists(path)


def connects(family, address, kind=socket.SOCK_STREAM):
    def probe():
        with socket.socket(family, kind) as s:
            s.settimeout(3)
            s.connect(address)
            s.send(b"x")
            return True
    return probe


def injects():
    fcntl.ioctl(0, 0x5412, b"x")
    return True


def injects_64():
    # CVE-2019-10063: the filter must look at 32 bits only, as the kernel does.
    return call(16, 0, ctypes.c_ulong(0x5412 | 1 << 32), ctypes.c_char_p(b"x"))


def foreign_processes():
    numbers = [name for name in os.listdir("/proc") if name.isdigit()]
    return len(numbers) > 3 and numbers


def foreign_descriptors():
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink("/proc/self/fd/" + name)
        except FileNotFoundError:
            continue
        if not target.startswith(("pipe:", "/dev/null", "/build/", "/proc/", OUT)):
            return target


def capability():
    return any(line.split()[1].strip("0") for line in open("/proc/self/status") if line.startswith("Cap"))


def overwrites(path):
    def probe():
        with open(path, "r+b") as f:
            f.write(b"#!/bin/sh\n")
        return True
    return probe


def set_id(mode):
    def probe():
        name = "%s/id%o" % (OUT, mode)
        open(name, "w").close()
        os.chmod(name, mode)
        return os.stat(name).st_mode & 0o6000
    return probe


def set_id_at_open():
    os.open(OUT + "/setid", os.O_CREAT | os.O_WRONLY, 0o4755)
    return os.stat(OUT + "/setid").st_mode & 0o6000


def set_id_without_a_name():
    descriptor = os.open(OUT, os.O_TMPFILE | os.O_RDWR, 0o2755)
    return os.fstat(descriptor).st_mode & 0o6000


def set_id_at_mkdir():
    os.mkdir(OUT + "/setgid-dir", 0o2755)
    return os.stat(OUT + "/setgid-dir").st_mode & 0o6000


def device():
    os.mknod(OUT + "/disk", 0o60666, os.makedev(8, 0))
    return True


def link_out():
    os.link(STORE + "/in/data", OUT + "/hard")
    return True


def climbs():
    os.chdir("/")
    for _ in range(20):
        os.chdir("..")
    return os.path.exists("root") or os.path.exists("home")


def raises(which):
    def probe():
        resource.setrlimit(which, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return True
    return probe


def scm_rights_to(name):
    """The fixed-output smuggle of CVE-2024-27297: a descriptor of the output, to somebody outside, over an abstract socket."""
    def probe():
        descriptor = os.open(OUT + "/smuggled", os.O_CREAT | os.O_RDWR, 0o644)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(3)
            s.connect(name)
            socket.send_fds(s, [b"x"], [descriptor])
            return True
    return probe


def same_namespace(kind, number):
    return lambda: os.readlink("/proc/self/ns/" + kind) == number


def remount():
    return succeeded(libc.mount(b"none", b"/", None, 32 | 4096, None))


def bind():
    return succeeded(libc.mount(b"/tmp", b"/usr", None, 4096, None))


def new_root_by_link():
    # runc, CVE-2021-30465 and later: a link of the build must not be where a mount comes; nothing mounts any more, and /build stays what it is.
    os.symlink("/", "/build/escape")
    return os.path.exists("/build/escape/root")


ABSTRACT = "\0" + sys.argv[1]
PORT = int(sys.argv[2])
SPACES = dict(pair.split("=", 1) for pair in sys.argv[3:])

PROBES = [
    ("abstract socket of a process outside", connects(socket.AF_UNIX, ABSTRACT)),
    ("descriptor over an abstract socket", scm_rights_to(ABSTRACT)),
    ("datagram to an abstract socket", connects(socket.AF_UNIX, ABSTRACT, socket.SOCK_DGRAM)),
    ("port of the machine's loopback", connects(socket.AF_INET, ("127.0.0.1", PORT))),
    ("port of the machine's loopback, IPv6", connects(socket.AF_INET6, ("::1", PORT))),
    ("address outside", connects(socket.AF_INET, ("192.0.2.1", 53), socket.SOCK_DGRAM)),
    ("name server", lambda: socket.getaddrinfo("example.net", 80)),
    ("raw packets", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    ("raw IP", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
    ("docker's socket", connects(socket.AF_UNIX, "/var/run/docker.sock")),
    ("system bus", connects(socket.AF_UNIX, "/run/dbus/system_bus_socket")),
    ("journal", connects(socket.AF_UNIX, "/run/systemd/journal/socket", socket.SOCK_DGRAM)),
    ("log", exists("/dev/log")),
    ("controlling terminal", opens("/dev/tty", os.O_RDWR)),
    ("terminals", exists("/dev/pts")),
    ("TIOCSTI", injects),
    ("TIOCSTI in 64 bits", injects_64),
    ("kernel log device", exists("/dev/kmsg")),
    ("memory device", exists("/dev/mem")),
    ("disks", lambda: glob.glob("/dev/[svx]d*") or glob.glob("/dev/nvme*")),
    ("fuse", exists("/dev/fuse")),
    ("kvm", exists("/dev/kvm")),
    ("tun", exists("/dev/net/tun")),
    ("/sys", exists("/sys")),
    ("/run", exists("/run")),
    ("/home", exists("/home")),
    ("/root", exists("/root")),
    ("/boot", exists("/boot")),
    ("/var/lib/dpkg", exists("/var/lib/dpkg")),
    ("/etc/shadow", exists("/etc/shadow")),
    ("/etc/resolv.conf", exists("/etc/resolv.conf")),
    ("/etc/machine-id", exists("/etc/machine-id")),
    ("other objects of the store", lambda: set(os.listdir(STORE)) - {"in", "out"}),
    ("the store's index", exists("/var/lib/sarsen/index.sqlite")),
    ("processes outside", foreign_processes),
    ("descriptors from outside", foreign_descriptors),
    ("root of process 1", lambda: os.readlink("/proc/1/root")),
    ("program of process 1", lambda: os.readlink("/proc/1/exe")),
    ("descriptors of process 1", lambda: [os.readlink("/proc/1/fd/" + name) for name in os.listdir("/proc/1/fd")]),
    ("memory of process 1", opens("/proc/1/mem", os.O_RDWR)),
    ("overwriting process 1 (CVE-2019-5736)", overwrites("/proc/1/exe")),
    ("overwriting own program (CVE-2019-5736)", overwrites("/proc/self/exe")),
    ("killing process 1", lambda: os.kill(1, 9) or os.getppid() == 0),
    ("tracing the parent", lambda: succeeded(libc.ptrace(16, os.getppid(), 0, 0))),
    ("capabilities", capability),
    ("user 0", lambda: os.setuid(0) or True),
    ("group 0", lambda: os.setgid(0) or True),
    ("groups", lambda: os.setgroups([0]) or True),
    ("set-user-id", set_id(0o4755)),
    ("set-group-id", set_id(0o2755)),
    ("set-user-id at open", set_id_at_open),
    ("set-user-id without a name", set_id_without_a_name),
    ("set-user-id at openat2", lambda: call(437, -100, ctypes.c_char_p(b"/build/two"), struct.pack("QQQ", 0o101, 0o4755, 0), 24)),
    ("set-group-id at mkdir", set_id_at_mkdir),
    ("fchmodat2", lambda: call(452, -100, ctypes.c_char_p(b"/build/source"), 0o4755, 0)),
    ("extended attribute", lambda: os.setxattr("/build/source", "user.x", b"y") or True),
    ("list of extended attributes", lambda: os.listxattr("/build/source") or True),
    ("capability of a file", lambda: os.setxattr("/build/source", "security.capability", b"\1\0\0\2" + bytes(16)) or True),
    ("device node", device),
    ("hard link of an input", link_out),
    ("writing to an input", opens(STORE + "/in/data", os.O_WRONLY)),
    ("mode of an input", lambda: os.chmod(STORE + "/in/data", 0o777) or True),
    ("replacing an input", lambda: os.rename(STORE + "/in", STORE + "/other") or True),
    ("time of an input", lambda: os.utime(STORE + "/in/data") or True),
    ("a new object", lambda: os.mkdir(STORE + "/new") or True),
    ("writing to /usr", opens("/usr/bin/sarsen-was-here", os.O_CREAT | os.O_WRONLY)),
    ("writing to /etc", opens("/etc/passwd", os.O_WRONLY)),
    ("writing to the script", opens("/script", os.O_WRONLY)),
    ("mode of a device", lambda: os.chmod("/dev/null", 0o777) or True),
    ("core pattern", opens("/proc/sys/kernel/core_pattern", os.O_WRONLY)),
    ("number of processes", opens("/proc/sys/kernel/pid_max", os.O_WRONLY)),
    ("sysrq", opens("/proc/sysrq-trigger", os.O_WRONLY)),
    ("mount", bind),
    ("remount writable", remount),
    ("unmount", lambda: succeeded(libc.umount2(b"/proc", 2))),
    ("open_tree", lambda: call(428, -100, ctypes.c_char_p(b"/"), 1)),
    ("fsopen", lambda: call(430, ctypes.c_char_p(b"tmpfs"), 0)),
    ("chroot", lambda: os.chroot("/tmp") or True),
    ("pivot_root", lambda: call(155, ctypes.c_char_p(b"/tmp"), ctypes.c_char_p(b"/tmp"))),
    ("new user namespace", lambda: succeeded(libc.unshare(0x10000000))),
    ("new namespace by clone3", lambda: call(435, ctypes.create_string_buffer(struct.pack("QQQQQQQQ", 0x10000000, 0, 0, 0, 17, 0, 0, 0)), 64)),
    ("joining a namespace", lambda: succeeded(libc.setns(os.open("/proc/self/ns/net", os.O_RDONLY), 0))),
    ("bpf", lambda: call(321, 0, ctypes.create_string_buffer(128), 128)),
    ("perf events", lambda: call(298, ctypes.create_string_buffer(128), 0, -1, -1, 0)),
    ("io_uring", lambda: call(425, 4, ctypes.create_string_buffer(128))),
    ("keyring", lambda: call(248, ctypes.c_char_p(b"user"), ctypes.c_char_p(b"x"), ctypes.c_char_p(b"y"), 1, -3)),
    ("userfaultfd", lambda: call(323, 0)),
    ("kernel modules", lambda: call(175, None, 0, ctypes.c_char_p(b""))),
    ("the clock", lambda: __import__("time").clock_settime(0, 1) or True),
    ("the host's name", lambda: socket.sethostname("other") or True),
    ("open by handle", lambda: call(304, 3, ctypes.create_string_buffer(64), 0)),
    ("climbing out of the root", climbs),
    ("a link where a mount was", new_root_by_link),
    ("more processes", raises(resource.RLIMIT_NPROC)),
    ("larger files", raises(resource.RLIMIT_FSIZE)),
    ("core dumps", raises(resource.RLIMIT_CORE)),
    ("less risk when memory is short", lambda: open("/proc/self/oom_score_adj", "w").write("0")),
] + [("namespace of the machine: " + kind, same_namespace(kind, number)) for kind, number in sorted(SPACES.items())]

held = 0
for name, probe in PROBES:
    try:
        result = probe()
    except (OSError, ValueError, OverflowError) as error:
        result = None
    if result:
        print("not refused: %s: %r" % (name, result))
    else:
        held += 1
print("%d of %d held" % (held, len(PROBES)))
sys.exit(min(len(PROBES) - held, 100))
