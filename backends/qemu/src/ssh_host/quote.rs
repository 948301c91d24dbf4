//! Commands for a remote shell: sshd hands them to the login's shell as one line, so every argument is quoted.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// The line that runs these arguments, killed after so many seconds. Every byte but NUL comes through.
pub(super) fn line(argv: &[impl AsRef<OsStr>], seconds: f64) -> Vec<u8> {
    // The shell that sshd starts has a bare path, and what it says depends on its language.
    let mut line = b"LC_ALL=C PATH=\"$PATH:/usr/local/sbin:/usr/sbin:/sbin\" exec timeout -s KILL ".to_vec();
    line.extend_from_slice(format!("{:.3}", seconds.max(0.001)).as_bytes());
    for arg in argv {
        line.push(b' ');
        quote(&mut line, arg.as_ref().as_bytes());
    }
    line
}

/// In single quotes nothing is special but the quote itself.
fn quote(line: &mut Vec<u8>, arg: &[u8]) {
    line.push(b'\'');
    for byte in arg {
        match byte {
            b'\'' => line.extend_from_slice(b"'\\''"),
            other => line.push(*other),
        }
    }
    line.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_gives_back_what_was_quoted() {
        for text in ["", "a b", "it's", "$(id) `id` \"x\" \\ * ~ ! #", "new\nline", "ünïcode", "'", "''", "-n"] {
            let line = line(&["printf", "%s", text], 5.0);
            let output = std::process::Command::new("sh").arg("-c").arg(OsStr::from_bytes(&line)).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }
}
