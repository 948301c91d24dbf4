# Dropbear's client, as it is on small machines.
. "$(dirname "$0")/row.sh"
needs dbclient dropbearconvert socat

dropbearconvert openssh dropbear "$KEY" key 2>/dev/null
mkdir -p .ssh
# It knows hosts without their ports, and reads a comment as part of the key.
sed 's/^\[\(.*\)\]:[0-9]* /\1 /' "$KNOWN_HOSTS" | cut -d ' ' -f 1-3 >.ssh/known_hosts
client() { dbclient -i key -p "$PORT" "$LOGIN@127.0.0.1" "$@"; }

L() {
    local port
    port=$(free_port)
    dbclient -i key -p "$PORT" -N -L "$port:127.0.0.1:$SERVICE" "$LOGIN@127.0.0.1" &
    until_so talk "TCP:127.0.0.1:$port"
    talk_much "TCP:127.0.0.1:$port"
    kill %1
}

R() {
    local port
    port=$(free_port)
    dbclient -i key -p "$PORT" -N -R "$port:127.0.0.1:$SERVICE" "$LOGIN@127.0.0.1" &
    ask() { [ "$(client "echo question | socat -t 20 - TCP:127.0.0.1:$port")" = $'hello\nquestion' ]; }
    until_so ask
    kill %1
}

standard
cell L
cell R
