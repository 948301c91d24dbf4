# An editor that works in the box, as VS Code's remote extension does: a script on a shell's standard input, which starts a
# server that stays; the editor talks to the server through a SOCKS port, loses its connection, and finds the server again.
. "$(dirname "$0")/row.sh"
needs ssh socat

client() { ssh -F "$CONFIG" box "$@"; }

server_stays() {
    local port socks answer
    port=$(free_port)
    socks=$(free_port)
    coproc ssh -F "$CONFIG" -T -D "$socks" box bash
    local editor=$COPROC_PID to=${COPROC[1]}
    cat >&"$to" <<SCRIPT
echo "shell of $LOGIN"
nohup socat TCP-LISTEN:$port,bind=127.0.0.1,fork,reuseaddr SYSTEM:'echo hello; cat' >server.log 2>&1 </dev/null &
echo \$! >'$HOME/server.pid'
until socat -u OPEN:/dev/null TCP:127.0.0.1:$port 2>/dev/null; do sleep 0.05; done
echo ready
SCRIPT
    read -r -t 30 answer <&"${COPROC[0]}" && [ "$answer" = "shell of $LOGIN" ]
    read -r -t 30 answer <&"${COPROC[0]}" && [ "$answer" = ready ]
    talk_much "SOCKS4A:127.0.0.1:127.0.0.1:$port,socksport=$socks"
    talk_big "SOCKS4A:127.0.0.1:127.0.0.1:$port,socksport=$socks"
    kill -9 "$editor"
    # It is there for the next connection, which forwards its port.
    client "kill -0 \$(cat '$HOME/server.pid')"
    ssh -F "$CONFIG" -f -N -M -S "$HOME/master" -L "$HOME/at-user:127.0.0.1:$port" box
    talk_much "UNIX-CONNECT:$HOME/at-user"
    ssh -F "$CONFIG" -S "$HOME/master" -O exit box
}
stop_server() { client "kill \$(cat '$HOME/server.pid')"; }

cell server_stays
cell stop_server
