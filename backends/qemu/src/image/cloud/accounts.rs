//! The guest's user, in files that have users of the image's own already.

use super::ext4::Change;

const NAME: &str = "box";
const FIRST_ID: u32 = 1000;
/// For the group `shadow`, if there is one.
const SECRET: u32 = 0o640;
const LAST_ID: u32 = 60_000;

/// A file with one account a line.
pub(super) struct File {
    pub(super) path: &'static str,
    mode: u32,
    /// What is appended; `ID` stands for the user's number.
    line: &'static str,
}

/// `*` is no password, and unlike `!` it does not lock the account out of key logins.
pub(super) const FILES: [File; 6] = [
    File { path: "/etc/passwd", mode: 0o644, line: "box:x:ID:ID:box:/home/box:/bin/bash" },
    File { path: "/etc/shadow", mode: SECRET, line: "box:*:19700:0:99999:7:::" },
    File { path: "/etc/group", mode: 0o644, line: "box:x:ID:" },
    File { path: "/etc/gshadow", mode: SECRET, line: "box:!::" },
    File { path: "/etc/subuid", mode: 0o644, line: "box:100000:65536" },
    File { path: "/etc/subgid", mode: 0o644, line: "box:100000:65536" },
];

/// A number that is free as a user's and a group's.
pub(super) fn free_id(passwd: &str, group: &str) -> u32 {
    let is_taken = |id: u32| {
        let id = id.to_string();
        let has = |text: &str| {
            text.lines().filter(|line| !belongs_to_the_user(line)).any(|line| line.split(':').nth(2) == Some(&id))
        };
        has(passwd) || has(group)
    };
    (FIRST_ID..LAST_ID).find(|id| !is_taken(*id)).unwrap_or(LAST_ID)
}

/// The number of the group that may check passwords; root's if there is none.
pub(super) fn shadow_group(group: &str) -> u32 {
    let line = group.lines().find_map(|line| line.strip_prefix("shadow:"));
    line.and_then(|line| line.split(':').nth(1)?.parse().ok()).unwrap_or(0)
}

/// The file with the user in it, and without one of the same name that was there.
pub(super) fn with_user(file: &File, content: &str, id: u32, shadow_group: u32) -> Change {
    let mut text = String::new();
    for line in content.lines().filter(|line| !belongs_to_the_user(line)) {
        text += line;
        text += "\n";
    }
    text += &file.line.replace("ID", &id.to_string());
    text += "\n";
    let group = if file.mode == SECRET { shadow_group } else { 0 };
    Change::Write { path: file.path.to_owned(), mode: file.mode, owner: (0, group), content: text.into_bytes() }
}

fn belongs_to_the_user(line: &str) -> bool {
    line.split(':').next() == Some(NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_gets_a_free_number_and_replaces_its_namesake() {
        let passwd =
            "root:x:0:0::/root:/bin/bash\nubuntu:x:1000:1000::/home/ubuntu:/bin/bash\nbox:x:1002:1002::/:/bin/false";
        let id = free_id(passwd, "root:x:0:\nlxd:x:1001:\n");
        assert_eq!(id, 1002);
        let Change::Write { content, mode, .. } = with_user(&FILES[0], passwd, id, 42) else { panic!("not a file") };
        let text = String::from_utf8(content).unwrap();
        assert_eq!(mode, 0o644);
        assert_eq!((shadow_group("shadow:x:42:\n"), shadow_group("root:x:0:\n")), (42, 0));
        assert!(text.starts_with("root:x:0:0::/root:/bin/bash\nubuntu:"), "{text}");
        assert!(text.ends_with("/bin/bash\nbox:x:1002:1002:box:/home/box:/bin/bash\n"), "{text}");
        assert_eq!(text.matches("box:x").count(), 1);
    }
}
