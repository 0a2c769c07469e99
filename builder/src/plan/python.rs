//! Installing fetched wheels: an ordinary build, without network, of a generated script.
//!
//! `pip` runs with `--require-hashes` once more, so the wheels in the store are checked against the lock file by the ecosystem's own
//! rules too. `--no-compile` and the later `compileall` with hash-based validation make byte code that does not depend on times.
//! Console scripts stay where `pip` puts them, `lib/python/bin`; `bin/<name>` are small shell wrappers that set `PYTHONPATH`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::BuildRecipe;
use crate::model::{PythonEnv, Source};

/// How long an installation may take, in seconds: the largest environments seen take a minute, byte-compilation included.
const INSTALL_TIMEOUT_S: u64 = 1800;

const SCRIPT: &str = r#"if ! test -x "$python"; then
    echo "the interpreter $python is not visible in the sandbox: it must lie below /usr, or be a build of this project" >&2
    exit 1
fi
if ! "$python" -m pip --version >/dev/null 2>&1; then
    echo "$python has no pip: install it on the build machine (Debian: apt install python3-pip)" >&2
    exit 1
fi
"$python" -m pip install --isolated --quiet --no-index --no-deps --no-compile --no-cache-dir --require-hashes --only-binary :all: \
    --no-warn-script-location --root-user-action=ignore --disable-pip-version-check \
    --find-links "$wheels" --requirement requirements.txt --target "$out/lib/python"
mkdir -p "$out/lib/python" "$out/bin"
# Where a wheel came from, and that it was asked for, says nothing about what it is.
find "$out/lib/python" -path '*.dist-info/*' \( -name direct_url.json -o -name REQUESTED \) -delete
# Packages may ship files that are not for this version of Python; they fail when imported, as they would without byte code.
"$python" -m compileall -q --invalidation-mode unchecked-hash "$out/lib/python" >/dev/null || true
wrapper() {
    printf '#!/bin/sh\nPYTHONPATH="%s${PYTHONPATH:+:$PYTHONPATH}"\nexport PYTHONPATH\nexec "%s" "$@"\n' "$out/lib/python" "$1" > "$2"
    chmod 755 "$2"
}
wrapper "$python" "$out/bin/python"
for script in "$out/lib/python/bin"/*; do
    if test -f "$script" && test -x "$script"; then
        wrapper "$script" "$out/bin/${script##*/}"
    fi
done
"#;

/// Makes the build that installs the wheels of `python`, an object called `wheels_name`.
pub(super) fn install(python: &PythonEnv, store: &str, wheels_name: &str) -> BuildRecipe {
    let lock: Arc<[u8]> = python.lock.as_bytes().into();
    BuildRecipe {
        script: SCRIPT.to_owned(),
        sources: vec![Source { name: "requirements.txt".to_owned(), files: vec![(None, lock, false)] }],
        environment: BTreeMap::from([
            ("python".to_owned(), python.python.clone()),
            ("wheels".to_owned(), format!("{store}/{}-{wheels_name}", python.wheels)),
        ]),
        timeout_s: INSTALL_TIMEOUT_S,
    }
}
