# What copies files with OpenSSH underneath: scp, sftp, rsync, git, lftp.
. "$(dirname "$0")/row.sh"
needs scp sftp rsync git lftp

copy() { # scp in the mode given, there and back
    scp -q -F "$CONFIG" "$1" "$BIG" "box:$HOME/up$1"
    unchanged "up$1"
    scp -q -F "$CONFIG" "$1" "box:$HOME/up$1" "down$1"
    unchanged "down$1"
}
scp_sftp() { copy -s; }
scp_legacy() { copy -O; }

sftp_batch() {
    printf 'put %s sftp-up\nget sftp-up sftp-down\nls -l\nrename sftp-up sftp-new\nrm sftp-new\n' "$BIG" |
        sed "s#sftp-\(up\|new\)#$HOME/&#g" | sftp -q -F "$CONFIG" -b - box
    unchanged sftp-down
    [ ! -e sftp-up ] && [ ! -e sftp-new ]
}

rsync_() {
    rsync -e "ssh -F $CONFIG" "$BIG" "box:$HOME/rsync-up"
    unchanged rsync-up
    # Now only what is different goes over the line.
    printf x | dd of=rsync-up bs=1 seek=1000000 conv=notrunc status=none
    rsync -cz --stats -e "ssh -F $CONFIG" "$BIG" "box:$HOME/rsync-up" | grep 'Matched data: 19'
    unchanged rsync-up
    rsync -e "ssh -F $CONFIG" "box:$HOME/rsync-up" rsync-down
    unchanged rsync-down
}

git_() {
    export GIT_SSH_COMMAND="ssh -F $CONFIG" GIT_CONFIG_GLOBAL=/dev/null
    git init -q --bare repository.git
    git clone -q "box:$HOME/repository.git" clone
    head -c 3000000 "$BIG" >clone/file
    git -C clone add file
    git -C clone -c user.name=u -c user.email=u@example.org commit -qm 'a file'
    git -C clone push -q origin HEAD
    git clone -q "box:$HOME/repository.git" again
    cmp clone/file again/file
}

lftp_() {
    lftp -c "set sftp:connect-program 'ssh -a -x -F $CONFIG'; set net:max-retries 1; open -u $LOGIN, sftp://box
        put '$BIG' -o '$HOME/lftp-up'
        get '$HOME/lftp-up' -o '$HOME/lftp-down'"
    unchanged lftp-up
    unchanged lftp-down
}

cell scp_sftp
cell scp_legacy
cell sftp_batch
cell rsync_
cell git_
cell lftp_
