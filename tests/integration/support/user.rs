//! An ordinary user known only to the tests: the suite's root takes its identity to call the runtime.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use super::host::{self, Outcome, need, need_program};
use super::{weakened, workspace};

const NAME: &str = "runtime-test";
pub const UID: u32 = 61_234;
pub const GID: u32 = 61_235;
/// The first of 65536 ids, of users and of groups, that the user may map.
pub const RANGE: u32 = 700_000;

/// The runtime under test where the user can execute it.
pub fn runtime() -> &'static Path {
    static COPY: LazyLock<PathBuf> = LazyLock::new(|| copy("runtime"));
    static WEAKENED: LazyLock<PathBuf> = LazyLock::new(|| copy("runtime-weakened"));
    if weakened::current().is_some() { &WEAKENED } else { &COPY }
}

fn copy(name: &str) -> PathBuf {
    let copy = workspace::directory().join(name);
    host::copy_runtime(&copy);
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

/// Gives a directory and all in it to the user.
pub fn give(directory: &Path) {
    lchown(directory, Some(UID), Some(GID)).unwrap();
    super::rootfs::give(directory, UID, GID);
}

/// Skips the test where ordinary users get no user namespaces.
pub fn need_user_namespaces() -> Outcome {
    static MAY: LazyLock<bool> = LazyLock::new(|| {
        let mut call = Command::new("setpriv");
        call.args(["--reuid", &UID.to_string(), "--regid", &GID.to_string(), "--clear-groups", "--"]);
        call.args(["unshare", "--user", "true"]).output().is_ok_and(|output| output.status.success())
    });
    need_program("setpriv")?;
    need_program("unshare")?;
    need(*MAY, "user namespaces for ordinary users")
}

/// Skips the test unless the user can map the ids of [`RANGE`] by newuidmap and newgidmap.
pub fn need_ranges() -> Outcome {
    static READY: LazyLock<Result<(), String>> = LazyLock::new(grant_ranges);
    need_user_namespaces()?;
    need_program("newuidmap")?;
    need_program("newgidmap")?;
    match &*READY {
        Ok(()) => Ok(()),
        Err(what) => need(false, what),
    }
}

/// In the suite's own mount namespace, or on a machine of its own, the user is known and has ranges.
fn grant_ranges() -> Result<(), String> {
    let grant = format!("{NAME}:{RANGE}:65536\n");
    let files = [
        ("/etc/passwd", format!("{NAME}:x:{UID}:{GID}::/:/bin/sh\n")),
        ("/etc/subuid", grant.clone()),
        ("/etc/subgid", grant),
    ];
    for (path, line) in files {
        if !Path::new(path).exists() {
            fs::write(path, "").map_err(|error| format!("{path}: {error}"))?;
        }
        let copy = workspace::directory().join(Path::new(path).file_name().unwrap());
        fs::write(&copy, fs::read_to_string(path).unwrap() + &line).unwrap();
        let mounted = Command::new("mount").arg("--bind").arg(&copy).arg(path).output();
        let mounted = mounted.map_err(|error| format!("mount: {error}"))?;
        if !mounted.status.success() {
            return Err(format!("a mount on {path}: {}", String::from_utf8_lossy(&mounted.stderr).trim()));
        }
    }
    Ok(())
}
