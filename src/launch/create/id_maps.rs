//! Id-mapped bind mounts. Only a detached mount can be id-mapped, and only with privileges over its file
//! system, so the parent clones the source and the init process inherits the clone.

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

/// Clones and id-maps the sources of the binds that need it, reusing clones that `inputs` has already.
/// `inputs` holds the container's user namespace if one is joined; `own` are the runtime's capabilities.
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

/// A bind mount that is id-mapped.
struct Mounting<'a> {
    plan: &'a Plan,
    /// Its index in `/mounts`.
    index: usize,
    mapping: &'a IdMapping,
    bind: &'a Bind,
    host: &'a trees::Mounts,
}

impl Mounting<'_> {
    fn source(&self) -> Pointer {
        Pointer::root().field("mounts").index(self.index).field("source")
    }

    /// # Errors
    /// If an earlier mount of the container covers the source: a mount can be id-mapped only while it is
    /// detached and by its creator, that is now, before the container's mounts are made.
    fn require_source(&self) -> Result<()> {
        let Some(earlier) = trees::earlier_mount(&self.plan.mounts.mounts, self.index, &self.plan.rootfs)
        else {
            return Ok(());
        };
        let message = format!(
            "source {:?} is covered by /mounts/{earlier}, which is mounted only after the ids are mapped",
            self.bind.source
        );
        Err(self.source().error_with_hint(message, "use the source of that mount, or remove the id mappings"))
    }

    /// Returns a detached clone of the source; `None` for a symbolic link that is copied.
    ///
    /// # Errors
    /// If this runtime may not clone mounts.
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

    /// Refuses sources that the container could take apart. When a mount namespace is made in another user
    /// namespace, the kernel locks its mounts together and locks their flags. These mounts are added later,
    /// so a process with CAP_SYS_ADMIN in the container can change them.
    ///
    /// # Errors
    /// If the source is read-only on the host, or the bind is recursive and has submounts.
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

/// The user namespaces whose maps are used for id-mapped mounts.
struct Namespaces<'a> {
    join: &'a [(Join, OwnedFd)],
    own: Sets,
    made: Vec<(IdMaps, OwnedFd)>,
}

impl Namespaces<'_> {
    /// Returns the container's user namespace if the mount uses its mapping and it is joined, otherwise one
    /// that is made once for each mapping.
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
