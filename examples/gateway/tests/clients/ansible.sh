# Ansible, with its connection that persists, with and without pipelining.
. "$(dirname "$0")/row.sh"
PATH="$CLIENTS/bin:$PATH"
needs ansible

export LC_ALL=C.UTF-8 ANSIBLE_SSH_ARGS="-F $CONFIG -o ControlMaster=auto -o ControlPersist=60s" \
    ANSIBLE_SSH_CONTROL_PATH="$HOME/master" ANSIBLE_REMOTE_TEMP="$HOME/remote" ANSIBLE_NOCOLOR=1
echo "box ansible_python_interpreter=$(command -v python3)" >inventory
run() { ansible -i inventory box "$@"; }

ping() { ANSIBLE_PIPELINING=false run -m ping | grep pong; }
pipelined() { ANSIBLE_PIPELINING=true run -m ping | grep pong; }
copy() {
    run -m copy -a "src=$BIG dest=$HOME/copied"
    unchanged copied
}
fails() { ! run -m command -a 'sh -c "exit 3"' >said && grep -q 'rc=3' said; }

cell ping
cell pipelined
cell copy
cell fails
ssh -F "$CONFIG" -S "$HOME/master" -O exit box 2>/dev/null || true
