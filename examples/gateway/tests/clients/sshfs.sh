# A folder of the box, mounted.
. "$(dirname "$0")/row.sh"
if ! : 2>/dev/null <>/dev/fuse; then
    not_run mount "/dev/fuse cannot be opened here"
    exit
fi
needs sshfs fusermount3

mount() {
    mkdir remote here
    sshfs -F "$CONFIG" "box:$HOME/remote" here
    local code=0
    use || code=$?
    fusermount3 -u here
    return "$code"
}
use() {
    cp "$BIG" here/file && unchanged remote/file && cp remote/file remote/back && unchanged here/back
    mv here/file here/moved && [ -e remote/moved ] && rm here/moved && [ ! -e remote/moved ]
}

cell mount
