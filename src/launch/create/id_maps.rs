//! Binds that show other ids than their source has. Only a mount that is attached nowhere yet, and only whoever has privileges
//! over its file system, can map them, so the parent clones the source and the init process inherits it.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result, anyhow};
use rustix::fs::StatVfsMountFlags;

use super::trees;
use crate::error::{Fault, Pointer};
use crate::init::step::{Bind, Step};
use crate::launch::user_namespace::{Holder, Writer};
use crate::plan::Plan;
use crate::plan::linux::id_maps::IdMaps;
use crate::plan::linux::namespaces::Join;
use crate::plan::mounts::{IdMapping, Origin};
use crate::program::{ChildInputs, SourceTree, describe_bind};
use crate::sys::Errno;
use crate::sys::cred::Sets;
use crate::sys::mount::map_ids;

/// Clones and maps the sources of those of the plan's binds that are to be mapped, as far as `inputs` has no clones of them yet.
/// `inputs` has the container's user namespace, if that exists already; `own` are the runtime's capabilities.
pub(super) fn open(plan: &Plan, inputs: &mut ChildInputs, own: Sets) -> Result<()> {
    let mut namespaces = Namespaces { join: &inputs.join, own, made: Vec::new() };
    let host = trees::Mounts::default();
    for (index, mapping) in &plan.mounts.id_mappings {
        let found = plan.mounts.mounts.iter().find(|(place, _)| place == index);
        let Some((_, Step::Bind(bind))) = found else { continue };
        let mounting = Mounting { plan, index: *index, mapping, bind, host: &host };
        mounting.require_source()?;
        let at = inputs.sources.iter().position(|(place, _)| place == index);
        let tree = match at {
            Some(at) => Some(inputs.sources.swap_remove(at).1.tree),
            None => mounting.open()?,
        };
        let Some(tree) = tree else { continue };
        mounting.require_fixed(tree.as_fd())?;
        let namespace = namespaces.of(mapping, plan.id_maps.as_ref())?;
        mounting.map(tree.as_fd(), namespace)?;
        inputs.sources.push((*index, SourceTree { tree, maps_ids: true }));
    }
    Ok(())
}

/// A bind whose ids are to be mapped.
struct Mounting<'a> {
    plan: &'a Plan,
    /// Its place in `/mounts`.
    index: usize,
    mapping: &'a IdMapping,
    bind: &'a Bind,
    host: &'a trees::Mounts,
}

impl Mounting<'_> {
    fn source(&self) -> Pointer {
        Pointer::root().field("mounts").index(self.index).field("source")
    }

    /// The ids of a mount can be mapped before it is attached alone, and by whoever made it, which is now.
    ///
    /// # Errors
    /// If an earlier mount of the container covers the source.
    fn require_source(&self) -> Result<()> {
        let Some(earlier) = trees::earlier_mount(&self.plan.mounts.mounts, self.index, &self.plan.rootfs)
        else {
            return Ok(());
        };
        let message = format_args!(
            "source {:?} is covered by /mounts/{earlier}, which is mounted only after the ids are mapped",
            self.bind.source
        );
        Err(self.source().error_with_hint(message, "use the source of that mount, or remove the id mappings"))
    }

    /// A clone of the source; `None` for a link that is copied.
    ///
    /// # Errors
    /// If this runtime cannot clone mounts.
    fn open(&self) -> Result<Option<OwnedFd>> {
        let fault = || Fault { pointer: self.source(), message: describe_bind(self.bind), hint: None };
        let tree = trees::open_source(self.bind, trees::propagation(self.plan)).with_context(fault)?;
        match tree {
            None if !self.bind.copy_symlink => {
                Err(self.mapping.at.error("id-mapped mounts are not supported for rootless containers"))
            }
            tree => Ok(tree),
        }
    }

    /// The kernel locks to each other, and to their flags, the mounts that a mount namespace begins with when it is made in another
    /// user namespace. These come later, and whoever may mount there can take them apart.
    ///
    /// # Errors
    /// If the container could make of the source what it is not on the host.
    fn require_fixed(&self, tree: BorrowedFd<'_>) -> Result<()> {
        if !self.plan.namespaces.has(libc::CLONE_NEWUSER) || !self.plan.may_mount() {
            return Ok(());
        }
        let status = rustix::fs::fstatvfs(tree).context("stat the source of an id-mapped mount")?;
        if status.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(self.mapping.at.error_with_hint(
                "source is read-only on the host, and a container with a user namespace could make it writable",
                "remove the id mappings, or the user namespace, or CAP_SYS_ADMIN and the startContainer hooks",
            ));
        }
        if self.bind.recursive && !self.host.has_none_below(&self.bind.source) {
            return Err(self.mapping.at.error_with_hint(
                "source has submounts, which a container with a user namespace could unmount or write to",
                "use a non-recursive bind, or remove the id mappings, or the user namespace, or CAP_SYS_ADMIN and the startContainer hooks",
            ));
        }
        Ok(())
    }

    fn map(&self, tree: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> Result<()> {
        map_ids(tree, self.mapping.reach, namespace).map_err(|errno| {
            let hint = match errno {
                Errno::INVAL => Some("its file system may not support id-mapped mounts on this kernel"),
                Errno::PERM => Some("the source may already be id-mapped, or its file system may belong to another user namespace"),
                _ => None,
            };
            anyhow!(errno).context(Fault {
                pointer: self.mapping.at.clone(),
                message: format!("map the ids of {}", describe_bind(self.bind)),
                hint: hint.map(str::to_owned),
            })
        })
    }
}

/// User namespaces, of which each says what is mapped to what.
struct Namespaces<'a> {
    join: &'a [(Join, OwnedFd)],
    own: Sets,
    made: Vec<(IdMaps, OwnedFd)>,
}

impl Namespaces<'_> {
    /// The container's, if the mapping is its, or else one that is made for the purpose, once for each mapping.
    fn of(&mut self, mapping: &IdMapping, container: Option<&IdMaps>) -> Result<BorrowedFd<'_>> {
        let (maps, origin) = mapping.resolve(container)?;
        let joined = self.join.iter().find(|(join, _)| join.kind == libc::CLONE_NEWUSER);
        if let (Origin::Container, Some((_, namespace))) = (origin, joined) {
            return Ok(namespace.as_fd());
        }
        let place = match self.made.iter().position(|(other, _)| *other == maps) {
            Some(place) => place,
            None => {
                let holder = Holder::with(&maps, Writer::own(self.own), &mapping.mount)?;
                let namespace = holder.namespace().with_context(|| Fault {
                    pointer: mapping.at.clone(),
                    message: "create a user namespace for the mapping".into(),
                    hint: None,
                })?;
                self.made.push((maps, namespace));
                self.made.len() - 1
            }
        };
        self.made.get(place).map(|(_, namespace)| namespace.as_fd()).context("open the user namespace")
    }
}
