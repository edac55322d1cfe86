# Sourced by the scripts beside it: makes a virtual environment and keeps it up to date.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    exit 1
}

# Prints the name of a Python that is new enough and can make virtual environments.
find_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11; do
        "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        "$name" -c 'import venv, ensurepip' 2>/dev/null ||
            fail "$name has no venv module; install it (Debian, Ubuntu: apt install python3-venv)"
        echo "$name"
        return
    done
    fail "needs Python 3.11 or newer, found $(python3 --version 2>/dev/null || echo none); install one"
}

# Prints what an environment depends on, as one hash: place, Python, requirements, exact versions.
environment_key() {
    "$1" - "$root" <<'PYTHON'
import hashlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
parts = [str(root), sys.version, *((root / f).read_text() for f in ("pyproject.toml", "constraints.txt"))]
print(hashlib.sha256("\0".join(parts).encode()).hexdigest())
PYTHON
}

# make_environment DIRECTORY [EXTRA...]: leaves segue and the extras installed in DIRECTORY.
# A stamp for each extra, and one for the core, says that it was installed whole with that key.
make_environment() {
    local directory=$1 python key extra list is_complete=yes
    shift
    python=$(find_python)
    key=$(environment_key "$python")
    for extra in core "$@"; do
        [[ "$(cat "$directory/installed-$extra" 2>/dev/null)" == "$key" ]] || is_complete=no
    done
    [[ $is_complete == no ]] || return 0

    echo "Installing segue into ${directory#"$root/"}: a minute or two, this once" >&2
    # A marker left by an installation that was killed: what lies there may be half a package.
    if [[ -e "$directory/interrupted" ]]; then rm -rf "$directory"; fi
    mkdir -p "$directory"
    touch "$directory/interrupted"
    "$python" -m venv "$directory" || fail "$python could not make $directory"
    list=$(IFS=,; echo "$*")
    "$directory/bin/python" -m pip install -qq --no-input --disable-pip-version-check \
        -c "$root/constraints.txt" -e "$root${list:+[$list]}" || {
        rm "$directory/interrupted"
        fail "pip could not install segue; its own message is above"
    }
    for extra in core "$@"; do echo "$key" >"$directory/installed-$extra"; done
    rm "$directory/interrupted"
}
