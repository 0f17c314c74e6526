//! Binds that show other ids than their source has. Only a mount that is attached nowhere yet, and only whoever has privileges
//! over its file system, can map them, so the parent clones the source and the init process inherits it.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result, anyhow};
use rustix::fs::StatVfsMountFlags;

use super::trees;
use crate::error::{Fault, Pointer};
use crate::init::step::Step;
use crate::launch::user_namespace::{Holder, Writer};
use crate::plan::Plan;
use crate::plan::linux::id_maps::IdMaps;
use crate::plan::linux::namespaces::Join;
use crate::plan::mounts::{IdMapping, Origin};
use crate::program::describe_bind;
use crate::sys::Errno;
use crate::sys::cred::Sets;
use crate::sys::mount::map_ids;

/// Clones and maps the sources of those of the plan's binds that are to be mapped. `join` has the container's user namespace, if that
/// exists already; `own` are the runtime's capabilities.
pub(super) fn open(plan: &mut Plan, join: &[(Join, OwnedFd)], own: Sets) -> Result<()> {
    let propagation = trees::propagation(plan);
    // The kernel locks to each other, and to their flags, the mounts that a mount namespace begins with when it is made in another
    // user namespace. These come later, and whoever may mount there can take them apart.
    let can_be_changed = plan.namespaces.has(libc::CLONE_NEWUSER) && plan.may_mount();
    let mounts = trees::Mounts::default();
    let mut namespaces = Namespaces { join, own, made: Vec::new() };
    for (index, mapping) in &plan.mounts.id_mappings {
        let earlier = trees::earlier_mount(&plan.mounts.mounts, *index, &plan.rootfs);
        let found = plan.mounts.mounts.iter_mut().find(|(place, _)| place == index);
        let Some((_, Step::Bind(bind))) = found else { continue };
        // The ids of a mount can be mapped before it is attached alone, and by whoever made it, which is now.
        if let Some(earlier) = earlier {
            let at = Pointer::root().field("mounts").index(*index).field("source");
            let message = format_args!(
                "source {:?} is covered by /mounts/{earlier}, which is mounted only after the ids are mapped",
                bind.source
            );
            return Err(
                at.error_with_hint(message, "use the source of that mount, or remove the id mappings")
            );
        }
        if bind.tree.is_none() {
            let source = Pointer::root().field("mounts").index(*index).field("source");
            let fault = || Fault { pointer: source, message: describe_bind(bind), hint: None };
            bind.tree = trees::open_source(bind, propagation).with_context(fault)?;
        }
        // A link that is copied, or a runtime that cannot clone mounts.
        let Some(tree) = &bind.tree else {
            if bind.copy_symlink {
                continue;
            }
            return Err(mapping.at.error("id-mapped mounts are not supported for rootless containers"));
        };
        let is_read_only =
            |tree| rustix::fs::fstatvfs(tree).map(|status| status.f_flag.contains(StatVfsMountFlags::RDONLY));
        if can_be_changed && is_read_only(tree).context("stat the source of an id-mapped mount")? {
            return Err(mapping.at.error_with_hint(
                "source is read-only on the host, and a container with a user namespace could make it writable",
                "remove the id mappings, or the user namespace, or CAP_SYS_ADMIN and the startContainer hooks",
            ));
        }
        if can_be_changed && bind.recursive && !mounts.has_none_below(&bind.source) {
            return Err(mapping.at.error_with_hint(
                "source has submounts, which a container with a user namespace could unmount or write to",
                "use a non-recursive bind, or remove the id mappings, or the user namespace, or \
                 CAP_SYS_ADMIN and the startContainer hooks",
            ));
        }
        bind.maps_ids = true;
        let namespace = namespaces.of(mapping, plan.id_maps.as_ref())?;
        map_ids(tree.as_fd(), mapping.reach, namespace).map_err(|errno| {
            let hint = match errno {
                Errno::INVAL => Some("its file system may not support id-mapped mounts on this kernel"),
                Errno::PERM => Some(
                    "the source may already be id-mapped, or its file system may belong to another \
                          user namespace",
                ),
                _ => None,
            };
            anyhow!(errno).context(Fault {
                pointer: mapping.at.clone(),
                message: format!("map the ids of {}", describe_bind(bind)),
                hint: hint.map(str::to_owned),
            })
        })?;
    }
    Ok(())
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
