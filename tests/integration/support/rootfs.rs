//! A root file system made from a static busybox.

use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::{env, fs};

use super::{Invocation, workspace};

/// The applets that tests call; all of busybox would be several hundred links per container.
const APPLETS: &[&str] = &[
    "awk",
    "cat",
    "chmod",
    "cp",
    "cut",
    "dd",
    "df",
    "echo",
    "env",
    "false",
    "find",
    "grep",
    "head",
    "hostname",
    "id",
    "ifconfig",
    "ionice",
    "ip",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mknod",
    "mount",
    "mountpoint",
    "mv",
    "nproc",
    "od",
    "ping",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "sed",
    "seq",
    "sh",
    "sleep",
    "sort",
    "stat",
    "stty",
    "tail",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "tty",
    "umount",
    "uname",
    "unshare",
    "wc",
    "whoami",
    "yes",
];

/// A call of the busybox that is in the root file systems.
pub fn busybox() -> Invocation {
    Invocation::new(&*BUSYBOX)
}

/// The one copy of busybox that all root file systems of this process link to.
static BUSYBOX: LazyLock<PathBuf> = LazyLock::new(|| {
    let usual = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let original = env::var("BUSYBOX").ok().or_else(|| usual.map(ToOwned::to_owned));
    let original = original.expect("busybox-static is not installed, and BUSYBOX names none");
    let copy = workspace::directory().join("busybox");
    fs::copy(&original, &copy).unwrap_or_else(|error| panic!("copy {original}: {error}"));
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    copy
});

/// Fills `directory` with a small system.
pub fn make(directory: &Path) {
    for name in ["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "var"] {
        fs::create_dir_all(directory.join(name)).unwrap();
    }
    fs::set_permissions(directory.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let bin = directory.join("bin");
    fs::hard_link(&*BUSYBOX, bin.join("busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", bin.join(applet)).unwrap();
    }
    let etc = directory.join("etc");
    fs::write(etc.join("passwd"), "root:x:0:0:root:/root:/bin/sh\nsome:x:1000:1000::/home:/bin/sh\n")
        .unwrap();
    fs::write(etc.join("group"), "root:x:0:\nsome:x:1000:\nmore:x:2000:some\n").unwrap();
}

/// Gives all of it to a user and group of the host, but for busybox: that file is in every root file system.
pub fn give(directory: &Path, user: u32, group: u32) {
    lchown(directory, Some(user), Some(group)).unwrap();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            give(&path, user, group);
        } else if !path.ends_with("bin/busybox") {
            lchown(&path, Some(user), Some(group)).unwrap();
        }
    }
}
