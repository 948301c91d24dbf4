# PuTTY's family: plink, psftp, pscp.
. "$(dirname "$0")/row.sh"
needs plink psftp pscp puttygen

puttygen "$KEY" -O private -o key.ppk
host_key=$(ssh-keygen -lf "$KNOWN_HOSTS" | cut -d ' ' -f 2)
options=(-batch -hostkey "$host_key" -i key.ppk -P "$PORT")
client() { plink "${options[@]}" -l "$LOGIN" 127.0.0.1 "$@"; }

pty() { client -t tty | grep ^/dev/pts/; }

L() {
    local port pid
    port=$(free_port)
    # Not by `client`: the end of a function's shell is not plink's.
    plink "${options[@]}" -l "$LOGIN" -N -L "$port:127.0.0.1:$SERVICE" 127.0.0.1 &
    pid=$!
    until_so talk "TCP:127.0.0.1:$port"
    talk_much "TCP:127.0.0.1:$port"
    kill "$pid"
}

psftp_() {
    printf 'put %s %s/psftp-up\nget %s/psftp-up psftp-down\n' "$BIG" "$HOME" "$HOME" >batch
    psftp "${options[@]}" -b batch "$LOGIN@127.0.0.1"
    unchanged psftp-up
    unchanged psftp-down
}

pscp_() {
    local mode
    for mode in sftp scp; do
        pscp "${options[@]}" -q "-$mode" "$BIG" "$LOGIN@127.0.0.1:$HOME/$mode-up"
        unchanged "$mode-up"
        pscp "${options[@]}" -q "-$mode" "$LOGIN@127.0.0.1:$HOME/$mode-up" "$mode-down"
        unchanged "$mode-down"
    done
}

standard
cell pty
cell L
cell psftp_
cell pscp_
