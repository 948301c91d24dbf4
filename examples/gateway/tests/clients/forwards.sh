# OpenSSH's forwards. Each is used: a server at its end speaks first, and bytes go through it both ways.
. "$(dirname "$0")/row.sh"
needs ssh socat

client() { ssh -F "$CONFIG" box "$@"; }

# Opens a connection that stays, with the forwards given; returns once they listen.
open() { ssh -F "$CONFIG" -f -N -M -S "$HOME/master" -o ExitOnForwardFailure=yes "$@" box; }
shut() { ssh -F "$CONFIG" -S "$HOME/master" -O exit box; }

L() {
    local port
    port=$(free_port)
    open -L "$port:127.0.0.1:$SERVICE"
    talk_much "TCP:127.0.0.1:$port"
    talk_big "TCP:127.0.0.1:$port"
    shut
}

D() {
    local port
    port=$(free_port)
    open -D "$port"
    talk_much "SOCKS4A:127.0.0.1:127.0.0.1:$SERVICE,socksport=$port"
    shut
}

R() {
    local port
    port=$(free_port)
    open -R "$port:127.0.0.1:$SERVICE"
    [ "$(client "echo question | socat -t 20 - TCP:127.0.0.1:$port")" = $'hello\nquestion' ]
    [ "$(client "socat -t 30 - TCP:127.0.0.1:$port <'$BIG' | tail -c +7 | sha256sum")" = "$SUM  -" ]
    shut
}

streamlocal_L() {
    socat "UNIX-LISTEN:$HOME/in-box,fork" "TCP:127.0.0.1:$SERVICE" &
    until_so test -S in-box
    open -L "$HOME/at-user:$HOME/in-box"
    talk_much "UNIX-CONNECT:$HOME/at-user"
    shut
    kill %1
}

streamlocal_R() {
    open -R "$HOME/box-socket:127.0.0.1:$SERVICE"
    [ "$(client "echo question | socat -t 20 - 'UNIX-CONNECT:$HOME/box-socket'")" = $'hello\nquestion' ]
    shut
}

W() { [ "$(echo question | ssh -F "$CONFIG" -W "127.0.0.1:$SERVICE" box)" = $'hello\nquestion' ]; }

J() { # the box's own server, by its own host key and with a key that it knows: the gateway only carries bytes
    [ "$(ssh -F "$CONFIG" inner 'echo $BOXNAME')" = "$LOGIN" ]
    [ "$(ssh -F "$CONFIG" inner sha256sum <"$BIG")" = "$SUM  -" ]
    [ "$(ssh -F "$CONFIG" inner "cat '$BIG'" | sha256sum)" = "$SUM  -" ]
}

refused() { # where nobody listens the client is told so, and other forwards go on
    local port nobody
    port=$(free_port)
    nobody=$(free_port)
    open -L "$port:127.0.0.1:$nobody" -L "$HOME/other:127.0.0.1:$SERVICE"
    [ -z "$(echo question | socat -t 20 - "TCP:127.0.0.1:$port" 2>&1)" ]
    talk "UNIX-CONNECT:$HOME/other"
    shut
}

cell L
cell D
cell R
cell streamlocal_L
cell streamlocal_R
cell W
cell J
cell refused
