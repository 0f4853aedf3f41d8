//! The user a process runs as, from what the image or the user wrote and the container's own
//! `/etc/passwd` and `/etc/group` (passwd(5), group(5)). Pure: the files' bytes are given.
//!
//! The files come from other people's images: a line that is not well-formed is passed over, never
//! read as the number 0.

use super::id_range::{IdRange, IdRangeError};
use crate::error::{Classify, ErrorKind};

/// A file of more bytes is refused.
pub const FILE_MAX: usize = 1024 * 1024;

/// The kernel's limit on supplementary groups (`NGROUPS_MAX`); one place is kept for the user's own.
const GROUPS_MAX: usize = 65_535;

/// The least number that is no id: 2^32-1 means "unchanged" to the kernel (chown(2)).
const ID_END: u32 = u32::MAX;

/// A user by numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, sorted, each once.
    pub groups: Vec<u32>,
    /// The home directory; `/` if the user has none.
    pub home: String,
}

impl ResolvedUser {
    /// The same user by the host's ids, where the container has a range of its own.
    ///
    /// # Errors
    /// [`IdRangeError`] that names the id that the range lacks.
    pub fn on_host(&self, range: Option<IdRange>) -> Result<Self, IdRangeError> {
        let Some(range) = range else { return Ok(self.clone()) };
        let groups = self.groups.iter().map(|gid| range.to_host("group", *gid));
        Ok(Self {
            uid: range.to_host("user", self.uid)?,
            gid: range.to_host("group", self.gid)?,
            groups: groups.collect::<Result<_, _>>()?,
            home: self.home.clone(),
        })
    }
}

/// Why a text is no user of the container.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// A name that is not in the container's file.
    #[error("the image's {file} has no {name:?}")]
    Unknown {
        /// `/etc/passwd` or `/etc/group`.
        file: &'static str,
        /// The name.
        name: String,
    },
    /// A number that is no id.
    #[error("{id:?} is no user or group id: they go from 0 to 4294967294")]
    Range {
        /// The number as written.
        id: String,
    },
    /// A file no image needs that large.
    #[error("the image's {file} has {size} bytes, at most {FILE_MAX} are read")]
    TooLarge {
        /// `/etc/passwd` or `/etc/group`.
        file: &'static str,
        /// Its size in bytes.
        size: usize,
    },
    /// More groups than the kernel takes.
    #[error("user {name:?} is in {count} groups, at most {GROUPS_MAX} are possible")]
    TooManyGroups {
        /// The user's name.
        name: String,
        /// How many.
        count: usize,
    },
}

impl Classify for UserError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown { .. } => ErrorKind::NotFound,
            _ => ErrorKind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { .. } => Some("give a numeric id, which needs no entry".to_owned()),
            _ => None,
        }
    }
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Resolves `name`, `uid`, `name:group`, `uid:gid` or nothing (root) by Docker's rules: a number
/// is never looked up as a name, but its entry gives the group and the home; the first entry
/// counts; supplementary groups are those that list the user's name, and only if no group is given.
///
/// A file that is missing is an empty one.
///
/// # Errors
/// [`UserError`]. A number out of range is an error and never taken for a name.
pub fn resolve(user: &str, passwd: &[u8], group: &[u8]) -> Result<ResolvedUser, UserError> {
    for (file, bytes) in [(PASSWD, passwd), (GROUP, group)] {
        if bytes.len() > FILE_MAX {
            return Err(UserError::TooLarge { file, size: bytes.len() });
        }
    }
    let (user, wanted_group) = user.split_once(':').unwrap_or((user, ""));
    // Nothing means root.
    let id = if user.is_empty() { Some(0) } else { numeric(user)? };
    let entry = passwd_entries(passwd).find(|entry| match id {
        Some(uid) => entry.uid == uid,
        None => entry.name == user,
    });
    let mut resolved = match (&entry, id) {
        (Some(entry), _) => ResolvedUser {
            uid: entry.uid,
            gid: entry.gid,
            groups: Vec::new(),
            home: entry.home.to_owned(),
        },
        (None, Some(uid)) => ResolvedUser { uid, gid: 0, groups: Vec::new(), home: "/".to_owned() },
        (None, None) => {
            return Err(UserError::Unknown { file: PASSWD, name: shortened(user) });
        }
    };
    if !wanted_group.is_empty() {
        resolved.gid = group_id(wanted_group, group)?;
    } else if let Some(entry) = entry {
        resolved.groups = groups_of(entry.name, group)?;
    }
    Ok(resolved)
}

fn group_id(wanted: &str, group: &[u8]) -> Result<u32, UserError> {
    if let Some(gid) = numeric(wanted)? {
        return Ok(gid);
    }
    group_entries(group)
        .find(|entry| entry.name == wanted)
        .map(|entry| entry.gid)
        .ok_or_else(|| UserError::Unknown { file: GROUP, name: shortened(wanted) })
}

fn groups_of(user: &str, group: &[u8]) -> Result<Vec<u32>, UserError> {
    let mut groups: Vec<u32> = group_entries(group)
        .filter(|entry| entry.members.split(',').any(|member| member == user))
        .map(|entry| entry.gid)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    if groups.len() > GROUPS_MAX {
        return Err(UserError::TooManyGroups { name: shortened(user), count: groups.len() });
    }
    Ok(groups)
}

/// The id a text is meant as; `None` if it is a name.
fn numeric(text: &str) -> Result<Option<u32>, UserError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match id(text) {
        Some(id) => Ok(Some(id)),
        None => Err(UserError::Range { id: shortened(text) }),
    }
}

/// Digits alone, in range. A sign makes a number too, but not one that is an id.
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&id| digits && id < ID_END)
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// `name:password:uid:gid:gecos:home:shell`; the last three may be missing.
fn passwd_entries(bytes: &[u8]) -> impl Iterator<Item = PasswdEntry<'_>> {
    lines(bytes).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (uid, gid) = (id(fields.nth(1)?)?, id(fields.next()?)?);
        let home = fields.nth(1).filter(|home| home.starts_with('/')).unwrap_or("/");
        Some(PasswdEntry { name, uid, gid, home })
    })
}

/// `name:password:gid:members`; the members may be missing.
fn group_entries(bytes: &[u8]) -> impl Iterator<Item = GroupEntry<'_>> {
    lines(bytes).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = id(fields.nth(1)?)?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or_default() })
    })
}

/// Lines that are text, without comments.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes.split(|&b| b == b'\n').filter_map(|line| {
        let line = std::str::from_utf8(line).ok()?.trim();
        (!line.is_empty() && !line.starts_with('#') && !line.contains('\0')).then_some(line)
    })
}

fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        # a comment:x:7:7::/:\n\
        app:x:1000:1001:App:/home/app:/bin/sh\n\
        app:x:2000:2000::/second:/bin/sh\n\
        short:x:5:6\n\
        1234:x:77:77::/named-like-a-number:\n\
        rel:x:8:8::home:\n";
    const GROUP: &[u8] = b"root:x:0:\nwheel:x:10:root,app\nstaff:x:50:app\nagain:x:50:app\n\
        app:x:1001:\nother:x:60:apple,xapp\n5678:x:99:\n";

    fn user(uid: u32, gid: u32, groups: &[u32], home: &str) -> ResolvedUser {
        ResolvedUser { uid, gid, groups: groups.to_vec(), home: home.to_owned() }
    }

    #[test]
    fn resolves_every_form() {
        let cases = [
            ("", user(0, 0, &[10], "/root")),
            ("root", user(0, 0, &[10], "/root")),
            ("0", user(0, 0, &[10], "/root")),
            ("app", user(1000, 1001, &[10, 50], "/home/app")),
            ("1000", user(1000, 1001, &[10, 50], "/home/app")),
            ("app:", user(1000, 1001, &[10, 50], "/home/app")),
            ("app:staff", user(1000, 50, &[], "/home/app")),
            ("app:0", user(1000, 0, &[], "/home/app")),
            ("1000:4242", user(1000, 4242, &[], "/home/app")),
            ("3000", user(3000, 0, &[], "/")),
            ("3000:staff", user(3000, 50, &[], "/")),
            (":staff", user(0, 50, &[], "/root")),
            ("short", user(5, 6, &[], "/")),
            ("rel", user(8, 8, &[], "/")),
            ("4294967294:4294967294", user(4294967294, 4294967294, &[], "/")),
            // a number is no name, even where a name is like it
            ("1234", user(1234, 0, &[], "/")),
            ("0:5678", user(0, 5678, &[], "/root")),
        ];
        for (text, want) in cases {
            assert_eq!(resolve(text, PASSWD, GROUP), Ok(want), "{text:?}");
        }
    }

    #[test]
    fn unknown_names_are_errors() {
        for (text, file) in [
            ("nobody", "/etc/passwd"),
            ("nobody:0", "/etc/passwd"),
            ("app:nogroup", "/etc/group"),
            ("a comment", "/etc/passwd"),
            ("0x0", "/etc/passwd"),
            (" 0", "/etc/passwd"),
        ] {
            match resolve(text, PASSWD, GROUP) {
                Err(UserError::Unknown { file: got, .. }) => assert_eq!(got, file, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(resolve("app", b"", b"").is_err());
        assert_eq!(resolve("", b"", b""), Ok(user(0, 0, &[], "/")));
    }

    #[test]
    fn numbers_out_of_range_never_become_names() {
        let passwd = b"4294967295:x:0:0::/:\n-1:x:0:0::/:\n99999999999999999999:x:0:0::/:\n";
        let group = b"4294967295:x:0:\n";
        for text in
            ["4294967295", "-1", "-0", "+7", "99999999999999999999", "0:4294967295", "0:-1", "1:-5"]
        {
            assert!(matches!(resolve(text, passwd, group), Err(UserError::Range { .. })), "{text}");
        }
    }

    #[test]
    fn broken_lines_are_no_root() {
        // Docker's parser reads each of these as uid 0.
        let passwd = b"a:x::0::/:\nb:x:zero:0::/:\nc\nd:x\ne:x:-1:0\nf:x:4294967295:0::/:\n\
            g:x:1:\nh\0:x:1:1::/:\n\xff\xfe:x:1:1::/:\n:x:1:1::/:\ni:x:+1:1::/:\n::::::\n";
        for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i"] {
            assert!(matches!(resolve(name, passwd, b""), Err(UserError::Unknown { .. })), "{name}");
        }
        let group = b"a:x::u\nb:x:bad:u\nc:x:4294967295:u\nd:x:9:u\n";
        assert_eq!(resolve("u", b"u:x:1:1::/:", group), Ok(user(1, 1, &[9], "/")));
    }

    #[test]
    fn huge_files_are_refused() {
        let huge = vec![b':'; FILE_MAX + 1];
        assert!(matches!(resolve("0", &huge, b""), Err(UserError::TooLarge { .. })));
        assert!(matches!(resolve("0", b"", &huge), Err(UserError::TooLarge { .. })));
        let many: Vec<u8> =
            (0..70_000u32).flat_map(|i| format!("g:x:{i}:u\n").into_bytes()).collect();
        assert!(many.len() < FILE_MAX);
        assert!(matches!(
            resolve("u", b"u:x:1:1::/:", &many),
            Err(UserError::TooManyGroups { count: 70_000, .. })
        ));
    }
}
