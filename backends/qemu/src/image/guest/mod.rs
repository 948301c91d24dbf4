//! The files of the builder's own that go into an image: the contract between a box and its runtime.
//!
//! - sshd listens on 10.0.2.15:22 and lets in whoever holds the recipe's key.
//! - The QEMU guest agent serves the port `org.qemu.guest_agent.0`, if the machine has it.
//! - The guest writes the line `boxpool: ready` to its first serial port, once per boot, when both are so.
//! - `/usr/lib/boxpool/identify HOSTNAME < host-key` makes a clone a box of its own.
//! - `/usr/lib/boxpool/wake EPOCH_SECONDS` sets the clock after a resume.

use super::recipe::{Kind, Recipe};

/// Packed into the initramfs as `/init`.
pub(super) const INITRAMFS_INIT: &str = include_str!("initramfs-init");
/// Changes the unpacked Debian packages in place.
pub(super) const CUSTOMISE: &str = include_str!("debian/customise");

/// Appended to the users' own.
pub(super) const BASHRC: &str = include_str!("debian/bashrc");
/// Units that do not run in a box made of a cloud image.
pub(super) const MASKED: &str = include_str!("cloud/masked");
/// Runs the agent that is brought along where an image has none.
pub(super) const AGENT_WRAPPER: &str = include_str!("cloud/qemu-ga");

/// A file to be put into the image, owned by root.
pub(super) struct GuestFile {
    /// Without the leading `/`.
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) text: String,
}

/// All of them.
pub(super) fn files(recipe: &Recipe) -> Vec<GuestFile> {
    let mut files = vec![
        script("identify", include_str!("common/identify")),
        script("wake", include_str!("common/wake")),
        script("network", include_str!("common/network")),
        script("hostkey", include_str!("common/hostkey")),
        script("agent", include_str!("common/agent")),
        config("etc/ssh/sshd_config", include_str!("common/sshd_config")),
        config("etc/ssh/box_authorized_keys", &format!("{}\n", recipe.key())),
        config("etc/hostname", "box\n"),
        config("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 box\n::1 localhost ip6-localhost ip6-loopback\n"),
        config("etc/resolv.conf", "nameserver 10.0.2.3\noptions timeout:2 attempts:2\n"),
        // The same in every box until `identify`; an empty one would make systemd take each boot for the first.
        config("etc/machine-id", "b0c5b0c5b0c54b0c8b0cb0c5b0c5b0c5\n"),
    ];
    files.extend(match recipe.kind {
        Kind::Debian => debian(),
        Kind::Tiny => tiny(),
        Kind::Cloud(_) => cloud(),
    });
    files
}

fn debian() -> Vec<GuestFile> {
    let unit = |name: &str, text| config(&format!("etc/systemd/system/{name}"), text);
    vec![
        unit("boxpool-network.service", include_str!("debian/boxpool-network.service")),
        unit("boxpool-agent.service", include_str!("debian/boxpool-agent.service")),
        unit("boxpool-ready.service", include_str!("debian/boxpool-ready.service")),
        unit("ssh.service.d/boxpool.conf", include_str!("debian/ssh.conf")),
        config("etc/systemd/system.conf.d/boxpool.conf", include_str!("debian/system.conf")),
        config("etc/systemd/journald.conf.d/boxpool.conf", include_str!("debian/journald.conf")),
        config("etc/systemd/logind.conf.d/boxpool.conf", include_str!("debian/logind.conf")),
        config("etc/profile.d/boxpool.sh", include_str!("debian/profile.sh")),
        config("etc/default/locale", "LANG=C.UTF-8\n"),
        // Moved to where it belongs by `customise`.
        config("usr/lib/boxpool/bashrc", BASHRC),
        GuestFile {
            path: "etc/sudoers.d/box".to_owned(),
            mode: 0o440,
            text: "box ALL=(ALL:ALL) NOPASSWD: ALL\n".to_owned(),
        },
    ]
}

fn cloud() -> Vec<GuestFile> {
    let mut files = debian();
    // It is appended to what the image has, which a script cannot do there.
    files.retain(|file| file.path != "usr/lib/boxpool/bashrc");
    files.extend([
        config("etc/fstab", include_str!("cloud/fstab")),
        config("etc/cloud/cloud-init.disabled", "A box needs nothing set up.\n"),
    ]);
    files
}

fn tiny() -> Vec<GuestFile> {
    vec![
        script("boot", include_str!("tiny/boot")),
        script("ready", include_str!("tiny/ready")),
        config("etc/inittab", include_str!("tiny/inittab")),
        config("etc/profile", include_str!("tiny/profile")),
        config("root/.bashrc", include_str!("tiny/profile")),
        config(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/bash\nsshd:x:100:65534::/run/sshd:/bin/false\nnobody:x:65534:65534::/:/bin/false\n",
        ),
        config("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
        GuestFile {
            path: "etc/shadow".to_owned(),
            mode: 0o600,
            text: "root:*:19700:0:99999:7:::\nsshd:!:19700::::::\nnobody:*:19700:0:99999:7:::\n".to_owned(),
        },
        config("etc/shells", "/bin/sh\n/bin/bash\n"),
        config("etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"),
        GuestFile { path: "usr/sbin/shutdown".to_owned(), mode: 0o755, text: include_str!("tiny/shutdown").to_owned() },
    ]
}

fn script(name: &str, text: &str) -> GuestFile {
    GuestFile { path: format!("usr/lib/boxpool/{name}"), mode: 0o755, text: text.to_owned() }
}

fn config(path: &str, text: &str) -> GuestFile {
    GuestFile { path: path.to_owned(), mode: 0o644, text: text.to_owned() }
}
