//! The mount options of `config.json`; config.md § Mounts, mount(8), mount_setattr(2).

use crate::sys::mount::{Attributes, Recursion};

/// `MOUNT_ATTR__ATIME`: the three bits that hold one access time mode; 0 is `relatime`.
const ATIME: u64 = 0x70;

/// The effect of an option.
#[derive(Clone, Copy, Debug)]
enum Effect {
    Set(Recursion, u64),
    Clear(Recursion, u64),
    /// Sets the access time mode.
    Atime(Recursion, u64),
    /// Takes an access time mode back. On a mount of the host the mode stays as it is, as with mount(8).
    NotAtime(u64),
    Propagation(Recursion, u64),
    Bind(Recursion),
    Remount,
    /// A flag of the file system, by its fsconfig(2) name; without effect on a bind.
    FileSystem(&'static str),
    CopyUp,
    CopySymlink,
    NoFollowSource,
    NoFollowTarget,
    /// Id-maps the source.
    IdMap(Recursion),
    /// Accepted without effect; CONFORMANCE.md says why.
    Nothing,
}

use Effect::{
    Atime, Bind, Clear, CopySymlink, CopyUp, FileSystem, IdMap, NoFollowSource, NoFollowTarget, NotAtime,
    Nothing, Propagation, Remount, Set,
};
use Recursion::{ThisMount as One, WholeTree as All};

const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
const NODIRATIME: u64 = libc::MOUNT_ATTR_NODIRATIME;
const NOSYMFOLLOW: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;
const NOATIME: u64 = libc::MOUNT_ATTR_NOATIME;
const STRICTATIME: u64 = libc::MOUNT_ATTR_STRICTATIME;
const RELATIME: u64 = 0;

/// All mount attributes except access time modes.
const BESIDES_ATIME: u64 = RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW;

/// config.md § Mounts, "Linux mount options", in the order of its table; then those of crun.
const TABLE: &[(&str, Effect)] = &[
    ("async", FileSystem("async")),
    ("atime", NotAtime(NOATIME)),
    ("bind", Bind(One)),
    ("defaults", Nothing),
    ("dev", Clear(One, NODEV)),
    ("diratime", Clear(One, NODIRATIME)),
    ("dirsync", FileSystem("dirsync")),
    ("exec", Clear(One, NOEXEC)),
    ("idmap", IdMap(One)),
    ("iversion", Nothing),
    ("lazytime", FileSystem("lazytime")),
    ("loud", Nothing),
    ("mand", FileSystem("mand")),
    ("noatime", Atime(One, NOATIME)),
    ("nodev", Set(One, NODEV)),
    ("nodiratime", Set(One, NODIRATIME)),
    ("noexec", Set(One, NOEXEC)),
    ("noiversion", Nothing),
    ("nolazytime", FileSystem("nolazytime")),
    ("nomand", FileSystem("nomand")),
    ("norelatime", NotAtime(RELATIME)),
    ("nostrictatime", NotAtime(STRICTATIME)),
    ("nosuid", Set(One, NOSUID)),
    ("nosymfollow", Set(One, NOSYMFOLLOW)),
    ("private", Propagation(One, libc::MS_PRIVATE)),
    ("ratime", Atime(All, RELATIME)),
    ("rbind", Bind(All)),
    ("rasync", FileSystem("async")),
    ("rdev", Clear(All, NODEV)),
    ("rdiratime", Clear(All, NODIRATIME)),
    ("rdirsync", FileSystem("dirsync")),
    ("relatime", Atime(One, RELATIME)),
    ("remount", Remount),
    ("rexec", Clear(All, NOEXEC)),
    ("ridmap", IdMap(All)),
    ("rmand", FileSystem("mand")),
    ("rnoatime", Atime(All, NOATIME)),
    ("rnodev", Set(All, NODEV)),
    ("rnodiratime", Set(All, NODIRATIME)),
    ("rnoexec", Set(All, NOEXEC)),
    ("rnomand", FileSystem("nomand")),
    ("rnorelatime", Atime(All, RELATIME)),
    ("rnostrictatime", Atime(All, RELATIME)),
    ("rnosuid", Set(All, NOSUID)),
    ("rnosymfollow", Set(All, NOSYMFOLLOW)),
    ("ro", Set(One, RDONLY)),
    ("rprivate", Propagation(All, libc::MS_PRIVATE)),
    ("rrelatime", Atime(All, RELATIME)),
    ("rro", Set(All, RDONLY)),
    ("rrw", Clear(All, RDONLY)),
    ("rshared", Propagation(All, libc::MS_SHARED)),
    ("rslave", Propagation(All, libc::MS_SLAVE)),
    ("rstrictatime", Atime(All, STRICTATIME)),
    ("rsuid", Clear(All, NOSUID)),
    ("rsync", FileSystem("sync")),
    ("rsymfollow", Clear(All, NOSYMFOLLOW)),
    ("runbindable", Propagation(All, libc::MS_UNBINDABLE)),
    ("rw", Clear(One, RDONLY)),
    ("shared", Propagation(One, libc::MS_SHARED)),
    ("silent", Nothing),
    ("slave", Propagation(One, libc::MS_SLAVE)),
    ("strictatime", Atime(One, STRICTATIME)),
    ("suid", Clear(One, NOSUID)),
    ("symfollow", Clear(One, NOSYMFOLLOW)),
    ("sync", FileSystem("sync")),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagation(One, libc::MS_UNBINDABLE)),
    ("copy-symlink", CopySymlink),
    ("src-nofollow", NoFollowSource),
    ("dest-nofollow", NoFollowTarget),
];

/// Every option that is not passed to the file system.
pub fn known() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// The attributes of a mount or a tree that result from all options; the last one wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    set: u64,
    clear: u64,
    atime: Option<u64>,
    propagation: u64,
    /// Whether any option sets or clears an attribute.
    named: bool,
}

impl Flags {
    pub fn attributes(self) -> Attributes {
        Attributes {
            set: self.set | self.atime.unwrap_or(0),
            clear: self.clear | self.atime.map_or(0, |_| ATIME),
            propagation: self.propagation,
        }
    }

    /// Applies `later` on top of these.
    pub fn then(self, later: Self) -> Self {
        Self {
            set: self.set & !later.clear | later.set,
            clear: self.clear & !later.set | later.clear,
            atime: later.atime.or(self.atime),
            propagation: if later.propagation == 0 { self.propagation } else { later.propagation },
            named: self.named || later.named,
        }
    }

    /// The attributes of a bind mount: those of the source if no option names one, otherwise exactly the
    /// named ones, as with runc and crun. The access time mode stays unless an option sets it.
    pub fn exactly(self) -> Attributes {
        self.over(if self.named { BESIDES_ATIME } else { 0 })
    }

    /// As much of [`Flags::exactly`] as a mount with locked attributes allows, because it comes from the
    /// mount namespace of a more privileged user namespace (mount_namespaces(7)): attributes that are set
    /// stay set. Attributes that an option clears by name are still cleared, so that the mount fails rather
    /// than ignore the option.
    pub fn beside_locked(self) -> Attributes {
        self.over(if self.named { self.clear & !NODIRATIME | NOSYMFOLLOW } else { 0 })
    }

    /// The attributes after clearing those in `clear` and setting these.
    fn over(self, clear: u64) -> Attributes {
        // As the kernel does in a remount: nodiratime alone implies relatime.
        let chooses_atime = self.atime.is_some() || self.set & NODIRATIME != 0;
        let clear = clear | if chooses_atime { ATIME | NODIRATIME } else { 0 };
        let set = self.set | self.atime.unwrap_or(RELATIME);
        Attributes { set, clear: clear & !(set & !ATIME), propagation: self.propagation }
    }

    /// The same flags without `MOUNT_ATTR_RDONLY`.
    pub fn writable(self) -> Self {
        Self { set: self.set & !RDONLY, ..self }
    }

    pub fn is_read_only(self) -> bool {
        self.set & RDONLY != 0
    }
}

/// The result of all options of one mount.
#[derive(Debug, Default)]
pub struct Options<'a> {
    pub bind: Option<Recursion>,
    pub remount: bool,
    /// The index of the `tmpcopyup` option.
    pub copy_up: Option<usize>,
    pub copy_symlink: bool,
    pub no_follow_source: bool,
    pub no_follow_target: bool,
    /// The index of the option, its recursion, and the mappings given with it in crun's syntax.
    pub id_map: Option<(usize, Recursion, Option<&'a str>)>,
    pub this_mount: Flags,
    pub whole_tree: Flags,
    /// Flags of the file system, with the index of the option.
    pub flags: Vec<(usize, &'static str)>,
    /// Options unknown to this table, for the file system itself, with their indices.
    pub data: Vec<(usize, &'a str)>,
}

impl<'a> Options<'a> {
    pub fn parse(options: &'a [String]) -> Self {
        let mut sum = Self::default();
        for (index, option) in options.iter().enumerate() {
            match TABLE.iter().find(|(name, _)| name == option) {
                Some((_, effect)) => sum.add(index, *effect),
                None => match option.split_once('=') {
                    // crun's syntax.
                    Some((name @ ("idmap" | "ridmap"), text)) => {
                        let reach = if name == "idmap" { One } else { All };
                        sum.id_map = Some((index, reach, Some(text).filter(|text| !text.is_empty())));
                    }
                    _ => sum.data.push((index, option)),
                },
            }
        }
        sum
    }

    fn add(&mut self, index: usize, effect: Effect) {
        match effect {
            Set(reach, bits) => {
                let flags = self.named(reach);
                flags.set |= bits;
                flags.clear &= !bits;
            }
            Clear(reach, bits) => {
                let flags = self.named(reach);
                flags.clear |= bits;
                flags.set &= !bits;
            }
            Atime(reach, choice) => self.named(reach).atime = Some(choice),
            NotAtime(choice) => {
                let flags = self.named(One);
                flags.atime = flags.atime.filter(|chosen| *chosen != choice);
            }
            Propagation(reach, kind) => {
                // Only one propagation applies: the last one, with its own recursion.
                (self.this_mount.propagation, self.whole_tree.propagation) = (0, 0);
                self.reach(reach).propagation = kind;
            }
            Bind(reach) => self.bind = Some(if self.bind == Some(All) { All } else { reach }),
            Remount => self.remount = true,
            FileSystem(flag) => self.flags.push((index, flag)),
            CopyUp => self.copy_up = Some(index),
            CopySymlink => self.copy_symlink = true,
            NoFollowSource => self.no_follow_source = true,
            NoFollowTarget => self.no_follow_target = true,
            IdMap(reach) => self.id_map = Some((index, reach, None)),
            Nothing => {}
        }
    }

    fn named(&mut self, reach: Recursion) -> &mut Flags {
        let flags = self.reach(reach);
        flags.named = true;
        flags
    }

    fn reach(&mut self, reach: Recursion) -> &mut Flags {
        match reach {
            One => &mut self.this_mount,
            All => &mut self.whole_tree,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Vec<String> {
        options.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_last_of_two_opposite_options_wins() {
        let options = parse(&["ro", "rw", "exec", "noexec"]);
        let flags = Options::parse(&options).this_mount;
        assert_eq!((flags.set, flags.clear), (NOEXEC, RDONLY));
    }

    #[test]
    fn a_choice_of_access_times_clears_the_others() {
        let options = parse(&["noatime", "strictatime"]);
        let attributes = Options::parse(&options).this_mount.attributes();
        assert_eq!((attributes.set, attributes.clear), (STRICTATIME, ATIME));
    }

    #[test]
    fn a_bind_has_the_attributes_that_are_named_and_no_others() {
        let exactly = |names: &[&str]| {
            let options = parse(names);
            let Attributes { set, clear, .. } = Options::parse(&options).this_mount.exactly();
            (set, clear)
        };
        let others = |set: u64| BESIDES_ATIME & !set;
        assert_eq!(exactly(&["bind", "rprivate"]), (0, 0));
        assert_eq!(exactly(&["bind", "ro"]), (RDONLY, others(RDONLY)));
        assert_eq!(exactly(&["bind", "ro", "rw"]), (0, others(0)));
        assert_eq!(exactly(&["bind", "nosuid", "dev"]), (NOSUID, others(NOSUID)));
        for leaves_atime in ["atime", "norelatime", "nostrictatime", "diratime"] {
            assert_eq!(exactly(&["bind", leaves_atime]), (0, others(0)), "{leaves_atime}");
        }
        assert_eq!(exactly(&["bind", "noatime", "atime"]), (0, others(0)));
        assert_eq!(exactly(&["bind", "noatime"]), (NOATIME, others(0) | ATIME | NODIRATIME));
        assert_eq!(exactly(&["bind", "nodiratime"]), (NODIRATIME, others(0) | ATIME));
        assert_eq!(
            exactly(&["bind", "nodiratime", "strictatime"]),
            (NODIRATIME | STRICTATIME, others(0) | ATIME)
        );
    }

    #[test]
    fn of_a_locked_mount_only_what_is_named_is_cleared() {
        let beside_locked = |names: &[&str]| {
            let options = parse(names);
            let Attributes { set, clear, .. } = Options::parse(&options).this_mount.beside_locked();
            (set, clear)
        };
        assert_eq!(beside_locked(&["bind"]), (0, 0));
        assert_eq!(beside_locked(&["bind", "ro", "suid"]), (RDONLY, NOSUID | NOSYMFOLLOW));
        assert_eq!(beside_locked(&["bind", "diratime", "nosymfollow"]), (NOSYMFOLLOW, 0));
        assert_eq!(beside_locked(&["bind", "relatime"]), (RELATIME, NOSYMFOLLOW | ATIME | NODIRATIME));
    }

    #[test]
    fn unknown_options_are_left_to_the_file_system_with_their_place() {
        let options = parse(&["nosuid", "mode=755", "ro", "rbnid"]);
        assert_eq!(Options::parse(&options).data, [(1, "mode=755"), (3, "rbnid")]);
    }

    #[test]
    fn recursive_options_leave_the_mount_itself_to_the_others() {
        let options = parse(&["rbind", "rro", "rslave", "nodev"]);
        let sum = Options::parse(&options);
        assert_eq!(sum.bind, Some(All));
        assert_eq!(sum.whole_tree.attributes().set, RDONLY);
        assert_eq!(sum.whole_tree.attributes().propagation, libc::MS_SLAVE);
        assert_eq!(sum.this_mount.attributes().set, NODEV);
    }
}
