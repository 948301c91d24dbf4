# What the rows of the client matrix share. A row defines `client`, which runs a command in the box, and a function for each
# cell of its own. It is given:
#   CONFIG   for OpenSSH and what uses it: `box`, `gateway`, and `inner`, the box's own server reached through the gateway
#   PORT LOGIN KEY KNOWN_HOSTS   the same for clients with a configuration of their own
#   BIG SUM  a file of 20 MB and its SHA-256
#   SERVICE  a port where a server speaks first ("hello") and then says what it hears
# HOME is the row's own folder.
set -u
here=$(dirname "${BASH_SOURCE[0]}")
cd "$HOME" || exit 1

# Tells the test that a row cannot be had. The test fails then: its installer brings every client.
needs() {
    local tool
    for tool; do
        command -v "$tool" >/dev/null && continue
        printf 'begin\t%s\nfailed\tnot installed; scripts/install-packages tests brings it\n' "$tool"
        exit 0
    done
}

# Runs the function $1 and tells the test how it did. A `_` at its end keeps a name apart from a program's.
cell() {
    printf 'begin\t%s\n' "${1%_}"
    (
        set -eo pipefail
        "$1"
    ) >cell.log 2>&1 </dev/null
    # Not as a condition: `set -e` has no effect inside one.
    if [ $? -eq 0 ]; then
        printf 'passed\n'
    else
        printf 'failed\t%s\n' "$(tail -c 600 cell.log | tr '\n\t\r' '   ')"
    fi
}

not_run() { printf 'begin\t%s\nnot run\t%s\n' "$1" "$2"; }

# The cells that every client has.
standard() {
    cell exec_
    cell status
    cell stderr
    cell in_
    cell out_
}
exec_() { [ "$(client 'echo $BOXNAME')" = "$LOGIN" ]; }
status() {
    local code=0
    client 'exit 7' || code=$?
    [ "$code" -eq 7 ]
}
stderr() {
    [ "$(client 'echo out; echo problem >&2' 2>problem)" = out ]
    grep -q problem problem
}
in_() { [ "$(client sha256sum <"$BIG")" = "$SUM  -" ]; }
out_() { [ "$(client "cat '$BIG'" | sha256sum)" = "$SUM  -" ]; }

unchanged() { [ "$(sha256sum <"$1")" = "$SUM  -" ]; }

# Polls until the command succeeds, or fails after a while.
until_so() {
    local left=300
    until "$@"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 0.05
    done
}

free_port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# A line to the service and back, by way of the address that socat is given.
talk() { [ "$(echo question | socat -t 20 - "$1")" = $'hello\nquestion' ]; }

# Six at once.
talk_much() {
    local number pid pids=()
    for number in 1 2 3 4 5 6; do
        talk "$1" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid"; done
}

# The big file to the service and back, both ways at once.
talk_big() { socat -t 30 - "$1" <"$BIG" | tail -c +7 >echoed && unchanged echoed; }
