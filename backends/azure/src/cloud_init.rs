//! What a new machine is told to become: a host for boxes, with the host key that its tag pins.
//!
//! On a plain Ubuntu it installs what is missing, which takes about a minute; on an image that has it all it installs
//! nothing. The last thing it does is to say that it is ready.

use crate::host_key::HostKey;

/// Written last.
pub(crate) const READY_FILE: &str = "/var/lib/boxpool/ready";

const PREPARE: &str = r#"#!/bin/sh
set -e
missing=""
for pair in qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils mkfs.ext4:e2fsprogs socat:socat ssh-keygen:openssh-client setpriv:util-linux; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
if [ -n "$missing" ]; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
fi
id boxpool >/dev/null 2>&1 || useradd --system --no-create-home --shell /usr/sbin/nologin boxpool
if [ -e /dev/kvm ]; then usermod -a -G kvm boxpool; fi
install -d -m 0711 /mnt/userdata
install -d -m 0700 /var/lib/boxpool
swapoff -a
systemctl restart ssh
touch /var/lib/boxpool/ready
"#;

/// Makes the machine ready to be copied: nothing of it is left that two machines must not share. Written by cloud-init.
pub(crate) const GENERALIZE: &str = "/var/lib/boxpool/generalize";

const GENERALIZE_SCRIPT: &str = r#"#!/bin/sh
set -e
rm -f /var/lib/boxpool/ready /root/.ssh/authorized_keys
apt-get clean
waagent -deprovision+user -force
cloud-init clean --logs --seed
rm -f /etc/ssh/ssh_host_*
truncate -s 0 /etc/machine-id
rm -f /var/lib/boxpool/generalize
sync
"#;

fn indented(text: &str, by: usize) -> String {
    text.trim_end().lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

/// The text for a machine with this host key that lets `login` (a public key) in as root.
pub(crate) fn text(key: &HostKey, login: &str) -> String {
    let (private, script) = (indented(key.private.reveal(), 4), indented(PREPARE, 6));
    let generalize = indented(GENERALIZE_SCRIPT, 6);
    let (public, login) = (&key.public, login.trim());
    format!(
        "#cloud-config\n\
         disable_root: false\n\
         ssh_pwauth: false\n\
         ssh_deletekeys: true\n\
         ssh_genkeytypes: []\n\
         ssh_keys:\n\
         \x20 ed25519_private: |\n{private}\
         \x20 ed25519_public: \"{public}\"\n\
         users:\n\
         \x20 - default\n\
         \x20 - name: root\n\
         \x20   ssh_authorized_keys:\n\
         \x20     - \"{login}\"\n\
         write_files:\n\
         \x20 - path: /etc/ssh/sshd_config.d/10-boxpool.conf\n\
         \x20   content: |\n\
         \x20     PermitRootLogin prohibit-password\n\
         \x20     PasswordAuthentication no\n\
         \x20     MaxSessions 20\n\
         \x20 - path: /usr/local/sbin/boxpool-prepare\n\
         \x20   permissions: \"0755\"\n\
         \x20   content: |\n{script}\
         \x20 - path: {GENERALIZE}\n\
         \x20   permissions: \"0700\"\n\
         \x20   content: |\n{generalize}\
         runcmd:\n\
         \x20 - [/usr/local/sbin/boxpool-prepare]\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_yaml_that_says_what_is_wanted() {
        let key = HostKey::generate().unwrap();
        let text = text(&key, "ssh-ed25519 AAAA boxpool\n");
        assert!(text.starts_with("#cloud-config\n") && text.len() < 65_536);
        // The same reader that cloud-init uses, where it is there; the shape is looked at in any case.
        for line in text.lines().skip(1) {
            let indent = line.len() - line.trim_start().len();
            assert!(indent % 2 == 0 || indent > 6, "{line}");
            assert!(!line.contains('\t'), "{line}");
        }
        assert!(text.contains(&format!("  ed25519_public: \"{}\"\n", key.public)));
        assert!(text.contains("    -----BEGIN OPENSSH PRIVATE KEY-----\n"));
        assert!(text.contains("    -----END OPENSSH PRIVATE KEY-----\n  ed25519_public"));
        assert!(text.contains("      - \"ssh-ed25519 AAAA boxpool\"\n"));
        assert!(text.ends_with("runcmd:\n  - [/usr/local/sbin/boxpool-prepare]\n"));
        assert!(text.contains(&format!("      touch {READY_FILE}\n  - path: {GENERALIZE}\n")));
    }
}
