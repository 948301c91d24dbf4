# Makes `disk.qcow2` of a tree of packages. Runs as root, or as the root of a user namespace.
# Arguments: packages.tar, folder to work in, file to make, size in bytes, kind (debian or tiny). Standard input: the authorized key.
set -eu
tar=$1 work=$2 out=$3 size=$4 kind=$5
key=$(cat)
rm -rf "$work"
mkdir -p "$work/root"
tar -C "$work/root" --exclude='./dev/*' -xf "$tar"
cd "$work/root"

printf '%s\n' "$key" > etc/ssh/box_authorized_keys
chmod 0644 etc/ssh/box_authorized_keys
rm -f etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N '' -C box -f etc/ssh/ssh_host_ed25519_key
cat > etc/ssh/sshd_config <<'SSHD'
# Reached by the gateway alone, with its own key.
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/box_authorized_keys
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
AcceptEnv *
AllowTcpForwarding yes
AllowStreamLocalForwarding yes
StreamLocalBindUnlink yes
AllowAgentForwarding yes
X11Forwarding yes
GatewayPorts no
MaxSessions 200
MaxStartups 200
LoginGraceTime 60
KexAlgorithms curve25519-sha256,curve25519-sha256@libssh.org
PidFile /run/sshd.pid
Subsystem sftp internal-sftp
SSHD
# Without PAM nobody else sets these for a session.
printf 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nLANG=C.UTF-8\n' > etc/environment
mkdir -p etc/ssh/sshrc.d usr/lib/boxpool run/sshd
sed -i '$a SetEnv PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8' etc/ssh/sshd_config
printf 'box\n' > etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 box\n::1 localhost\n' > etc/hosts
printf 'nameserver 10.0.2.3\n' > etc/resolv.conf
printf '/dev/vda / ext4 noatime 0 1\n' > etc/fstab
: > etc/machine-id
rm -f var/lib/dbus/machine-id
# A history that survives whatever happens to the shell.
printf 'PROMPT_COMMAND="history -a${PROMPT_COMMAND:+;$PROMPT_COMMAND}"\nshopt -s histappend\nHISTSIZE=10000\nHISTFILESIZE=20000\n' > etc/boxpool-history
printf '\n. /etc/boxpool-history\n' >> etc/bash.bashrc

cat > usr/lib/boxpool/identify <<'HOOK'
#!/bin/sh
# Makes a fresh copy its own machine. Argument: host name. Standard input: the private host key. May be run twice.
set -eu
umask 077
cat > /etc/ssh/new_host_key
mv /etc/ssh/new_host_key /etc/ssh/ssh_host_ed25519_key
rm -f /etc/ssh/ssh_host_ed25519_key.pub
umask 022
printf '%s\n' "$1" > /etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost\n' "$1" > /etc/hosts
echo "$1" > /proc/sys/kernel/hostname
tr -d '-' < /proc/sys/kernel/random/uuid > /etc/machine-id
head -c 512 /dev/urandom > /dev/urandom
# sshd's listener starts a process for each connection, and that process reads the host key from the file: nothing to restart.
HOOK
cat > usr/lib/boxpool/wake <<'HOOK'
#!/bin/sh
# After every resume. Argument: seconds since 1970.
exec date -s "@$1"
HOOK
cat > usr/lib/boxpool/network <<'HOOK'
#!/bin/sh
# QEMU's user network always looks like this.
ip link set lo up
for link in /sys/class/net/*; do
    name=${link##*/}
    [ "$name" = lo ] && continue
    ip addr add 10.0.2.15/24 dev "$name"
    ip link set "$name" up
    ip route add default via 10.0.2.2
done
HOOK
cat > usr/lib/boxpool/agent <<'HOOK'
#!/bin/sh
# The port is found by its name in /sys: without udev there is no /dev/virtio-ports.
for port in /sys/class/virtio-ports/*; do
    if [ "$(cat "$port/name")" = org.qemu.guest_agent.0 ]; then
        mkdir -p /run/qemu-ga
        exec /usr/sbin/qemu-ga -m virtio-serial -p "/dev/${port##*/}" -t /run/qemu-ga
    fi
done
HOOK
cat > usr/lib/boxpool/ready <<'HOOK'
#!/bin/sh
# Says that the machine is up when its SSH server listens and its agent runs. Within a bound: then it says so all the same.
tries=0
until grep -q ':0016 00000000:0000 0A' /proc/net/tcp && pidof qemu-ga > /dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || break
    sleep 0.1
done
echo "boxpool: ready" > /dev/ttyS0
HOOK
chmod 0755 usr/lib/boxpool/*

case $kind in
tiny)
    # No service manager: a short script is the first process and becomes a reaper.
    rm -f sbin/init
    cat > sbin/init <<'INIT'
#!/bin/bash
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=0755 run /run
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
mkdir -p /run/sshd /run/lock
mount -o remount,rw /
cat /etc/hostname > /proc/sys/kernel/hostname
[ -s /etc/machine-id ] || tr -d '-' < /proc/sys/kernel/random/uuid > /etc/machine-id
/usr/lib/boxpool/network
/usr/sbin/sshd
/usr/lib/boxpool/agent &
/usr/lib/boxpool/ready &
exec /usr/lib/boxpool/reaper
INIT
    cat > usr/lib/boxpool/reaper <<'INIT'
#!/bin/bash
# The first process: bash collects the children that others leave behind while it waits.
trap 'sync; echo o > /proc/sysrq-trigger' TERM PWR
while :; do
    sleep 3600 &
    wait $!
done
INIT
    chmod 0755 sbin/init usr/lib/boxpool/reaper
    sed -i 's|^root:[^:]*:|root:*:|' etc/shadow
    ;;
debian)
    useradd -R "$PWD" -m -u 1000 -s /bin/bash box
    echo 'box ALL=(ALL) NOPASSWD: ALL' > etc/sudoers.d/box
    chmod 0440 etc/sudoers.d/box
    sed -i 's|^box:[^:]*:|box:*:|; s|^root:[^:]*:|root:*:|' etc/shadow
    unit() { cat > "etc/systemd/system/$1"; ln -sf "../$1" "etc/systemd/system/multi-user.target.wants/$1"; }
    mkdir -p etc/systemd/system/multi-user.target.wants
    unit box-network.service <<'UNIT'
[Unit]
Description=The box's network
DefaultDependencies=no
Before=ssh.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/boxpool/network
UNIT
    unit box-agent.service <<'UNIT'
[Unit]
Description=The box's agent
[Service]
ExecStart=/usr/lib/boxpool/agent
UNIT
    unit box-ready.service <<'UNIT'
[Unit]
Description=Says that the box is up
After=ssh.service box-agent.service
[Service]
Type=oneshot
ExecStart=/usr/lib/boxpool/ready
UNIT
    ln -sf /lib/systemd/system/ssh.service etc/systemd/system/multi-user.target.wants/ssh.service
    ln -sf /lib/systemd/system/multi-user.target etc/systemd/system/default.target
    # What a machine of this kind does not need, and what takes long to start under a translator.
    for name in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer motd-news.timer \
        systemd-timesyncd.service systemd-resolved.service networking.service e2scrub_reap.service qemu-guest-agent.service \
        getty.target serial-getty@ttyS0.service systemd-udev-settle.service rsync.service; do
        ln -sf /dev/null "etc/systemd/system/$name"
    done
    mkdir -p etc/systemd/logind.conf.d etc/systemd/journald.conf.d
    printf '[Login]\nKillUserProcesses=no\n' > etc/systemd/logind.conf.d/box.conf
    printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=8M\n' > etc/systemd/journald.conf.d/box.conf
    ;;
esac
rm -rf var/cache/apt/archives/*.deb var/lib/apt/lists/*
cd /
truncate -s "$size" "$work/disk.raw"
mke2fs -q -t ext4 -d "$work/root" -L box -E lazy_itable_init=1,lazy_journal_init=1 "$work/disk.raw"
qemu-img convert -O qcow2 "$work/disk.raw" "$out.partial"
mv "$out.partial" "$out"
rm -rf "$work"
