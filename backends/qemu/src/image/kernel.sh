# Fetches Debian 12's generic kernel and the static busybox, and makes `vmlinux` and `initrd.cpio` of them.
# Arguments: mirror, folder to work in, folder to put the two files in.
# The host's own apt configuration is not used, so that any Debian or Ubuntu release can do this.
set -eu
mirror=$1 work=$2 out=$3
rm -rf "$work"
mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial" "$work/debs" "$work/root"
touch "$work/apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm main" > "$work/apt/sources.list"
apt() {
    tool=$1
    shift
    "$tool" -o Dir::State="$work/apt" -o Dir::State::status="$work/apt/status" -o Dir::State::lists="$work/apt/lists" \
        -o Dir::Cache="$work/apt/cache" -o Dir::Etc::sourcelist="$work/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null -o APT::Architecture=amd64 \
        -o APT::Architectures=amd64 -o Acquire::Languages=none -o APT::Sandbox::User= -o Acquire::Retries=3 "$@"
}
apt apt-get -qq update
kernel=$(apt apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-6/ {print $2; exit}')
[ -n "$kernel" ] || { echo "the mirror has no linux-image-amd64 for bookworm" >&2; exit 1; }
cd "$work/debs"
apt apt-get -qq download "$kernel" busybox-static
for deb in *.deb; do dpkg-deb -x "$deb" "$work/root"; done

# The ELF inside the bzImage: offsets from the kernel's boot protocol (Documentation/arch/x86/boot.rst, payload_offset).
image=$(ls "$work"/root/boot/vmlinuz-*)
number() { od -An -tu"$2" -j "$1" -N "$2" "$image" | tr -d ' '; }
sectors=$(number 497 1)
offset=$(($(number 584 4) + (sectors + 1) * 512))
length=$(($(number 588 4) - 4)) # the last four bytes are the unpacked size
tail -c +$((offset + 1)) "$image" | head -c "$length" > "$work/payload"
case $(od -An -tx1 -N 4 "$work/payload" | tr -d ' ') in
    fd377a58) unpack="xz -dc" ;;
    28b52ffd) unpack="zstd -dcq" ;;
    1f8b*) unpack="gzip -dc" ;;
    02214c18) unpack="lz4 -dcq" ;;
    *) echo "the kernel is packed in a way that is not known here" >&2; exit 1 ;;
esac
$unpack "$work/payload" > "$out/vmlinux.partial"

# The first program: loads the drivers, mounts the disk, hands over. Order matters (virtio_ring before virtio on 6.1).
modules="crc16 crc32c_generic libcrc32c mbcache jbd2 ext4 virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev
virtio_pci virtio_blk failover net_failover virtio_net rng-core virtio-rng virtio_console virtio_balloon qemu_fw_cfg"
ramdisk="$work/ramdisk"
mkdir -p "$ramdisk/bin" "$ramdisk/dev" "$ramdisk/proc" "$ramdisk/newroot" "$ramdisk/lib"
cp "$work/root/bin/busybox" "$ramdisk/bin/busybox"
loads=
for module in $modules; do
    file=$(find "$work/root/lib/modules" \( -name "$module.ko" -o -name "$module.ko.xz" \) | head -n 1)
    [ -n "$file" ] || continue # built in
    case $file in
        *.xz) xz -dc "$file" > "$ramdisk/lib/$module.ko" ;;
        *) cp "$file" "$ramdisk/lib/$module.ko" ;;
    esac
    loads="$loads $module"
done
cat > "$ramdisk/init" <<INIT
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in$loads; do /bin/busybox insmod /lib/\$module.ko; done
tries=0
until /bin/busybox mount -t ext4 -o noatime /dev/vda /newroot; do
    tries=\$((tries + 1))
    [ \$tries -lt 100 ] || { echo "boxpool: no disk"; /bin/busybox poweroff -f; }
    /bin/busybox usleep 50000
done
/bin/busybox mount --move /dev /newroot/dev
exec /bin/busybox switch_root /newroot /sbin/init
INIT
chmod 0755 "$ramdisk/init"
(cd "$ramdisk" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) > "$out/initrd.cpio.partial"
mv "$out/vmlinux.partial" "$out/vmlinux"
mv "$out/initrd.cpio.partial" "$out/initrd.cpio"
rm -rf "$work"
