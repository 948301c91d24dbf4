# OpenSSH's ssh: what runs in the box.
. "$(dirname "$0")/row.sh"
needs ssh xauth Xvfb xdpyinfo ssh-agent

client() { ssh -F "$CONFIG" box "$@"; }

pty() { [ "$(client -tt 'stty size >/dev/null && tty' | tr -d '\r' | grep -c ^/dev/pts/)" -eq 1 ]; }

signal() {
    local code=0
    client 'kill -TERM $$' || code=$?
    [ "$code" -eq 255 ]
}

no_command() { # a connection without any channel holds the box up, and lets go of it
    state() { ssh -F "$CONFIG" gateway list --json | grep -q "\"name\":\"$LOGIN\",[^{}]*\"state\":\"$1\""; }
    until_so state detached
    ssh -F "$CONFIG" -N box &
    until_so state running
    kill $!
    until_so state detached
}

fifty_at_once() { # over one connection, and none ends before all have begun
    ssh -F "$CONFIG" -f -N -M -S "$HOME/master" box
    mkdir begun
    local number pids=()
    for number in $(seq 50); do
        client -S "$HOME/master" "cd '$HOME/begun'; touch $number; until [ -e 50 ] && [ \$(ls | wc -l) = 50 ]; do sleep 0.1; done; exit $number" &
        pids+=($!)
    done
    local code wrong=0
    for number in $(seq 50); do
        code=0
        wait "${pids[number - 1]}" || code=$?
        [ "$code" -eq "$number" ] || wrong=1
    done
    ssh -F "$CONFIG" -S "$HOME/master" -O exit box
    [ "$wrong" -eq 0 ]
}

rekey() { # new keys every megabyte, 80 MB both ways at once
    local much=("$BIG" "$BIG" "$BIG" "$BIG")
    [ "$(cat "${much[@]}" | client -o RekeyLimit=1M cat | sha256sum)" = "$(cat "${much[@]}" | sha256sum)" ]
}

agent() {
    eval "$(ssh-agent -a "$HOME/agent")"
    local code=0
    ssh-add -q "$KEY" && client -A -o IdentityAgent="$HOME/agent" 'ssh-add -l' | grep ED25519 || code=$?
    ssh-agent -k
    return "$code"
}

x11() { # a real display, and a real program that looks at it from the box
    local code=0
    # Its number comes on the descriptor once it takes connections.
    coproc Xvfb -displayfd 1 -screen 0 64x64x24 -nolisten tcp 2>/dev/null
    local server=$COPROC_PID number
    read -r -t 20 number <&"${COPROC[0]}"
    DISPLAY=":$number" client "$1" xdpyinfo | grep 'dimensions: *64x64' || code=$?
    kill "$server"
    return "$code"
}
x11_trusted() { x11 -Y; }
x11_untrusted() { x11 -X; }

strict_kex() {
    client -vvv true 2>said
    grep -q 'will use strict KEX' said
}

post_quantum() { # by agreement where this client has it, else as an offer to those that do
    client -vv true 2>said
    if ssh -Q kex | grep mlkem768x25519-sha256; then
        grep -q 'kex: algorithm: mlkem768x25519-sha256' said
    else
        sed -n '/peer server KEXINIT/,$p' said | grep 'KEX algorithms: mlkem768x25519-sha256'
    fi
}

standard
cell pty
cell signal
cell no_command
cell fifty_at_once
cell rekey
cell agent
cell x11_trusted
cell x11_untrusted
cell strict_kex
cell post_quantum
