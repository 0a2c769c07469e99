"""The trees that are stored and copied: real packages, made once and kept.

`site`: 15 wheels of PyPI installed one directory each (11k files, 234 MB); its second version has Django and certifi one version on.
`big`: the installed Rust toolchain and `site` (63k files, 1.5 GB); its second version has one file in a hundred changed as an edit does.
Unchanged files of a second version are hard links of the first, as they are for whoever works on a tree.
"""

import hashlib
import os
import shutil
import subprocess
import sys

SAME = ["numpy==2.1.1", "pandas==2.2.2", "sqlalchemy==2.0.35", "cryptography==43.0.1", "lxml==5.3.0", "pillow==10.4.0", "pytz==2024.2",
        "babel==2.16.0", "jinja2==3.1.4", "pyyaml==6.0.2", "setuptools==75.1.0", "psycopg2-binary==2.9.9", "botocore==1.35.20"]
FIRST = ["django==5.1.1", "certifi==2024.7.4"]
SECOND = ["django==5.1.2", "certifi==2024.8.30"]


def site(work):
    """The directories of both versions of `site`."""
    first, second = work / "site/v1", work / "site/v2"
    if not (work / "site/ready").exists():
        _install(first, SAME + FIRST)
        shutil.rmtree(second, ignore_errors=True)
        subprocess.run(["cp", "-al", first, second], check=True)
        for package in SECOND:
            shutil.rmtree(second / package.split("==")[0])
        _install(second, SECOND)
        (work / "site/ready").touch()
    return first, second


def big(work):
    """The directories of both versions of `big`."""
    first, second = work / "big/v1", work / "big/v2"
    if not (work / "big/ready").exists():
        old, new = site(work)
        shutil.rmtree(work / "big", ignore_errors=True)
        first.mkdir(parents=True)
        toolchain = subprocess.run(["rustc", "--print", "sysroot"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        subprocess.run(["cp", "-a", toolchain, first / "rust"], check=True)
        subprocess.run(["cp", "-a", old, first / "site"], check=True)
        subprocess.run(["cp", "-al", first, second], check=True)
        for package in SECOND:
            name = package.split("==")[0]
            shutil.rmtree(second / "site" / name)
            subprocess.run(["cp", "-a", new / name, second / "site" / name], check=True)
        _edit_some(second / "rust")
        (work / "big/ready").touch()
    return first, second


def _install(target, packages):
    for package in packages:
        directory = target / package.split("==")[0]
        if not directory.is_dir():
            subprocess.run([sys.executable, "-m", "pip", "-q", "install", "--no-deps", "--no-compile", "--root-user-action=ignore",
                            "--target", directory, package], check=True)


def _edit_some(top):
    for directory, _, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            chosen = int(hashlib.md5(os.path.relpath(path, top).encode()).hexdigest()[:8], 16) % 100 == 0
            if not chosen or os.path.islink(path):
                continue
            mode = os.stat(path).st_mode & 0o7777
            with open(path, "rb") as file:
                content = file.read()
            os.unlink(path)
            middle = len(content) // 2
            with open(path, "wb") as file:
                file.write(content[:middle] + b"\n/* edited */\n" + content[middle:])
            os.chmod(path, mode)
