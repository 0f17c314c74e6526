//! The capabilities of this machine, and the runtime under test.
#![allow(unsafe_code, reason = "bpf(2) has no safe form")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;
use std::{env, fmt, fs};

use rustix::fs::StatVfsMountFlags;

use super::weakened;

/// Why a test cannot run here.
#[derive(Debug)]
pub struct Skip(String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a test ends if it does not panic.
pub type Outcome = Result<(), Skip>;

pub const CGROUPS: &str = "/sys/fs/cgroup";

/// The cgroup that those of the tests are made in: the top, or what the virtual machine has prepared (`VM_CGROUP`).
pub fn cgroup_parent() -> &'static Path {
    static PARENT: LazyLock<PathBuf> =
        LazyLock::new(|| env::var_os("VM_CGROUP").map_or_else(|| CGROUPS.into(), PathBuf::from));
    &PARENT
}

/// Whether the containers of the tests have systemd's scopes as their cgroups (`CGROUP_DRIVER=systemd`).
pub fn by_systemd() -> bool {
    static DRIVER: LazyLock<bool> =
        LazyLock::new(|| env::var_os("CGROUP_DRIVER").is_some_and(|driver| driver == "systemd"));
    *DRIVER
}

/// Skips the test that asks unless `condition` holds.
pub fn need(condition: bool, what: impl fmt::Display) -> Outcome {
    if condition { Ok(()) } else { Err(Skip(format!("needs {what}"))) }
}

pub fn need_controller(name: &str) -> Outcome {
    need(has_controller(name), format_args!("the {name} controller"))
}

pub fn has_controller(name: &str) -> bool {
    static AVAILABLE: LazyLock<String> = LazyLock::new(|| {
        let parent = if by_systemd() { Path::new(CGROUPS) } else { cgroup_parent() };
        fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default()
    });
    AVAILABLE.split_whitespace().any(|controller| controller == name)
}

/// `number` as in capability.h, for example 24 for CAP_SYS_RESOURCE.
pub fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    u64::from_str_radix(effective, 16).unwrap() & (1 << number) != 0
}

pub fn need_sys_resource() -> Outcome {
    need(has_capability(24), "CAP_SYS_RESOURCE")
}

pub fn need_program(name: &str) -> Outcome {
    let path = env::var("PATH").unwrap_or_default();
    need(path.split(':').any(|dir| Path::new(dir).join(name).exists()), format_args!("the program {name:?}"))
}

/// Device nodes that a test makes can be opened: the directory for temporary files is not mounted `nodev`.
pub fn need_device_nodes() -> Outcome {
    need(!temporary_files_are(StatVfsMountFlags::NODEV), "a directory for temporary files without nodev")
}

/// Set-id bits of files that a test makes count.
pub fn need_set_id_bits() -> Outcome {
    need(!temporary_files_are(StatVfsMountFlags::NOSUID), "a directory for temporary files without nosuid")
}

fn temporary_files_are(mounted: StatVfsMountFlags) -> bool {
    rustix::fs::statvfs(env::temp_dir()).unwrap().f_flag.contains(mounted)
}

/// An empty disk that a test may read.
pub fn need_disk() -> Result<String, Skip> {
    let disk = env::var("VM_DISK").unwrap_or_default();
    need(!disk.is_empty(), "a disk of its own")?;
    Ok(disk)
}

/// Skips what only our own runtime promises: its texts, its way of reading arguments.
pub fn need_own() -> Outcome {
    need(is_own(), "the runtime of this repository")
}

/// Skips what the peer named `name` is known to do otherwise.
pub fn need_other_than(name: &str, what: &str) -> Outcome {
    need(kind() != name, format_args!("a runtime other than {name}, which {what}"))
}

/// Copies the runtime to `path`, by another process: while it is open for writing here, what another test starts meanwhile would
/// hold it, too, and nobody could execute it (ETXTBSY).
pub fn copy_runtime(path: &Path) {
    let copied = Command::new("cp").arg("--").arg(runtime()).arg(path).status().expect("run cp");
    assert!(copied.success(), "cp {} {}", runtime().display(), path.display());
}

pub fn is_own() -> bool {
    kind() == "runtime"
}

/// The first word of `--version`: `runtime`, `runc`, `crun`.
pub fn kind() -> &'static str {
    static KIND: LazyLock<String> = LazyLock::new(|| {
        let version = Command::new(runtime()).arg("--version").output().expect("run the runtime");
        match String::from_utf8_lossy(&version.stdout).split_whitespace().next() {
            Some(word @ ("crun" | "runc")) => word.to_owned(),
            _ => "runtime".to_owned(),
        }
    });
    &KIND
}

/// The runtime under test; a weakened build where a test wants that.
pub fn runtime() -> &'static Path {
    static RUNTIME: LazyLock<String> = LazyLock::new(|| {
        let named = env::var("RUNTIME").unwrap_or_default();
        if named.is_empty() { env!("CARGO_BIN_EXE_runtime").to_owned() } else { named }
    });
    weakened::current().map_or(Path::new(RUNTIME.as_str()), |(_, weakened)| weakened)
}

/// `native`, or the kind of virtual machine: `quick`, `full`, `systemd`.
pub fn machine() -> &'static str {
    static MACHINE: LazyLock<String> =
        LazyLock::new(|| env::var("VM_KIND").unwrap_or_else(|_| "native".to_owned()));
    &MACHINE
}

pub fn is_prepared() -> bool {
    machine() != "native" || env::var_os("PRIVATE_CGROUP2").is_some()
}

/// How long to wait for what normally takes milliseconds: a virtual machine is up to 20 times slower.
pub fn patience() -> Duration {
    Duration::from_secs(if machine() == "native" { 20 } else { 120 })
}

/// Skips the test unless the ids of mounts of the file system that `path` is on can be mapped; mount_setattr(2), "ID-mapped mounts".
pub fn need_id_mapping(path: &Path) -> Outcome {
    const EXT4: u64 = 0xef53;
    const XFS: u64 = 0x5846_5342;
    const BTRFS: u64 = 0x9123_683e;
    const TMPFS: u64 = 0x0102_1994;
    let since = match u64::try_from(rustix::fs::statfs(path).unwrap().f_type).unwrap_or(0) {
        EXT4 | XFS => (5, 12),
        BTRFS => (5, 15),
        TMPFS => (6, 3),
        _ => (u32::MAX, 0),
    };
    need(
        kernel() >= since,
        format_args!("a file system and a kernel for ID-mapped mounts in {}", path.display()),
    )
}

/// Major and minor number.
fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.trim().parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// How many BPF programs the kernel holds.
pub fn bpf_programs() -> usize {
    /// `BPF_PROG_GET_NEXT_ID`; linux/bpf.h.
    const NEXT: libc::c_int = 11;
    // `start_id`, `next_id` and `open_flags`.
    let mut attributes = [0_u32; 3];
    let next = |attributes: &mut [u32; 3]| {
        // SAFETY: the structure of this command, of the size that is given, is borrowed across the call; the kernel writes `next_id`
        // into it and keeps nothing.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, NEXT, attributes.as_mut_ptr(), size_of_val(attributes)) };
        attributes[0] = attributes[1];
        result == 0
    };
    let count = std::iter::repeat_with(|| next(&mut attributes)).take_while(|found| *found).count();
    let errno = std::io::Error::last_os_error().raw_os_error();
    assert_eq!(errno, Some(libc::ENOENT), "BPF_PROG_GET_NEXT_ID");
    count
}
