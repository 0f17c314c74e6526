//! Id-mapped mounts: config.md § Mounts, `uidMappings`, `gidMappings`, options `idmap` and `ridmap`.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::bundle::{add_mount, join_namespace};
use crate::support::container::{NO_OPTIONS, ROOT_OUTSIDE};
use crate::support::host::{is_own, need_id_mapping, need_other_than, need_own, need_program};
use crate::support::suite::suite;
use crate::support::{Container, Outcome};

suite![
    without_a_user_namespace_the_ids_are_those_outside,
    in_a_user_namespace_the_ids_are_those_inside,
    the_containers_mapping_is_taken_if_none_is_given,
    the_mapping_of_a_joined_user_namespace_is_taken_if_none_is_given,
    what_is_written_belongs_to_the_mapped_ids,
    several_mappings_go_together_in_one_container,
    several_ranges_are_mapped_for_mounts_too,
    idmap_leaves_what_is_mounted_below_and_ridmap_does_not,
    what_is_mounted_below_goes_into_a_user_namespace_with_those_who_cannot_take_it_away,
    crun_s_option_maps_too,
    other_options_go_with_a_mapping,
    a_file_is_mapped,
    a_mount_that_is_no_bind_is_not_mapped,
    a_mapping_needs_users_and_groups,
    an_option_without_any_mapping_is_refused,
    a_file_system_that_cannot_be_mapped_is_named,
    the_source_is_left_as_it_is,
    a_source_that_an_earlier_mount_covers_is_refused,
];

/// A directory with a file for each of these owners, named by them.
fn source(container: &Container, owners: &[[u32; 2]]) -> PathBuf {
    let path = container.beside("source");
    fs::create_dir(&path).unwrap();
    fill(&path, owners);
    path
}

fn fill(path: &Path, owners: &[[u32; 2]]) {
    for [user, group] in owners {
        let file = path.join(format!("{user}-{group}"));
        fs::write(&file, "").unwrap();
        lchown(&file, Some(*user), Some(*group)).unwrap();
    }
}

fn ranges(ranges: &[[u32; 3]]) -> Value {
    let one = |[inside, outside, size]: &[u32; 3]| json!({ "containerID": inside, "hostID": outside, "size": size });
    ranges.iter().map(one).collect()
}

/// A bind of `source` on /tmp/mapped with these options and mappings.
fn mapped(source: &Path, options: &[&str], users: &[[u32; 3]], groups: &[[u32; 3]]) -> Value {
    let mut mount =
        json!({ "destination": "/tmp/mapped", "type": "bind", "source": source, "options": options });
    if !users.is_empty() {
        mount["uidMappings"] = ranges(users);
        mount["gidMappings"] = ranges(groups);
    }
    mount
}

const SHOW: &str = "cd /tmp/mapped && stat -c '%n %u %g' *";

fn nobody() -> [String; 2] {
    ["uid", "gid"].map(|kind| {
        let id = fs::read_to_string(format!("/proc/sys/kernel/overflow{kind}")).unwrap();
        id.trim().to_owned()
    })
}

fn without_a_user_namespace_the_ids_are_those_outside() -> Outcome {
    let container = Container::with_script(SHOW);
    let source = source(&container, &[[100, 211], [101, 5]]);
    need_id_mapping(&source)?;
    let container = container
        .edit(|spec| add_mount(spec, mapped(&source, &["bind"], &[[100, 5000, 10]], &[[211, 6000, 1]])));
    let [_, group] = nobody();
    assert_eq!(container.says(), format!("100-211 5000 6000\n101-5 5001 {group}"));
    container.leaves_nothing();
    Ok(())
}

fn in_a_user_namespace_the_ids_are_those_inside() -> Outcome {
    let [user, group] = ROOT_OUTSIDE;
    let container = Container::with_script(SHOW).in_user_namespace();
    let source = source(&container, &[[0, 0], [7, 8]]);
    need_id_mapping(&source)?;
    let container = container
        .edit(|spec| add_mount(spec, mapped(&source, &["bind"], &[[0, user, 100]], &[[0, group + 50, 10]])));
    assert_eq!(container.says(), "0-0 0 50\n7-8 7 58");
    container.leaves_nothing();
    Ok(())
}

fn the_containers_mapping_is_taken_if_none_is_given() -> Outcome {
    let container = Container::with_script(SHOW).in_user_namespace();
    let source = source(&container, &[[0, 0], [7, 8]]);
    need_id_mapping(&source)?;
    let container = container.edit(|spec| add_mount(spec, mapped(&source, &["bind", "idmap"], &[], &[])));
    assert_eq!(container.says(), "0-0 0 0\n7-8 7 8");
    Ok(())
}

fn the_mapping_of_a_joined_user_namespace_is_taken_if_none_is_given() -> Outcome {
    let other = Container::idle().in_user_namespace();
    other.launch();
    let [user, group] = ROOT_OUTSIDE;
    let container = Container::with_script(SHOW).owned_by(user, group);
    let source = source(&container, &[[0, 0], [7, 8]]);
    need_id_mapping(&source)?;
    let container = container.edit(|spec| {
        join_namespace(spec, "user", format!("/proc/{}/ns/user", other.pid()));
        add_mount(spec, mapped(&source, &["bind", "ridmap"], &[], &[]));
    });
    assert_eq!(container.says(), "0-0 0 0\n7-8 7 8");
    Ok(())
}

fn what_is_written_belongs_to_the_mapped_ids() -> Outcome {
    let container = Container::with_script("touch /tmp/mapped/new; stat -c %u:%g /tmp/mapped/new")
        .in_user_namespace()
        .edit(|spec| spec["process"]["user"] = json!({ "uid": 3, "gid": 4 }));
    let source = source(&container, &[]);
    need_id_mapping(&source)?;
    fs::set_permissions(&source, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let container = container.edit(|spec| add_mount(spec, mapped(&source, &["bind", "idmap"], &[], &[])));
    assert_eq!(container.says(), "3:4");
    let made = fs::metadata(source.join("new")).unwrap();
    assert_eq!((made.uid(), made.gid()), (3, 4));
    Ok(())
}

fn several_mappings_go_together_in_one_container() -> Outcome {
    let container = Container::with_script("stat -c '%n %u %g' /tmp/[a-d]/*");
    let source = source(&container, &[[100, 200]]);
    need_id_mapping(&source)?;
    let container = container.edit(|spec| {
        for (name, outside) in [("a", 1000), ("b", 2000), ("c", 1000), ("d", 0)] {
            let mut mount = mapped(&source, &["bind"], &[[100, outside, 1]], &[[200, outside + 1, 1]]);
            mount["destination"] = json!(format!("/tmp/{name}"));
            if outside == 0 {
                for field in ["uidMappings", "gidMappings"] {
                    mount.as_object_mut().unwrap().remove(field);
                }
            }
            add_mount(spec, mount);
        }
    });
    let said = container.says();
    let owners: Vec<_> = said.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(owners, ["1000 1001", "2000 2001", "1000 1001", "100 200"]);
    container.leaves_nothing();
    Ok(())
}

fn several_ranges_are_mapped_for_mounts_too() -> Outcome {
    let container = Container::with_script(SHOW);
    let source = source(&container, &[[100, 211], [101, 222], [102, 233]]);
    need_id_mapping(&source)?;
    let users = [[100, 1000, 1], [101, 2000, 1], [102, 3000, 1]];
    let groups = [[210, 1100, 10], [220, 2200, 10], [230, 3300, 10]];
    let container = container.edit(|spec| add_mount(spec, mapped(&source, &["bind"], &users, &groups)));
    assert_eq!(container.says(), "100-211 1000 1101\n101-222 2000 2202\n102-233 3000 3303");
    Ok(())
}

fn idmap_leaves_what_is_mounted_below_and_ridmap_does_not() -> Outcome {
    need_program("unshare")?;
    for (option, below) in [("idmap", "100 200"), ("ridmap", "1000 2000")] {
        let container =
            Container::with_script("stat -c '%u %g' /tmp/mapped/100-200 /tmp/mapped/below/100-200");
        let source = source(&container, &[[100, 200]]);
        need_id_mapping(&source)?;
        let other = container.beside("other");
        fs::create_dir(&other).unwrap();
        fs::create_dir(source.join("below")).unwrap();
        fill(&other, &[[100, 200]]);
        let container = container.edit(|spec| {
            add_mount(spec, mapped(&source, &["rbind", option], &[[100, 1000, 1]], &[[200, 2000, 1]]));
        });
        let script = format!("mount --bind {} {}/below && exec \"$@\"", other.display(), source.display());
        let output =
            container.run_with(NO_OPTIONS).called_by(["unshare", "--mount", "sh", "-c", &script, "sh"]);
        assert_eq!(output.succeeds().stdout, format!("1000 2000\n{below}\n"), "{option}");
        container.leaves_nothing();
    }
    Ok(())
}

/// What the parent maps is attached later than the kernel would lock it.
fn what_is_mounted_below_goes_into_a_user_namespace_with_those_who_cannot_take_it_away() -> Outcome {
    need_program("unshare")?;
    let harmless = json!(["CAP_CHOWN"]);
    let mounting = json!(["CAP_SYS_ADMIN"]);
    let flags = ["", "-o remount,bind,ro"];
    for (capabilities, has_hook, flags) in [
        (&harmless, false, flags[0]),
        (&harmless, false, flags[1]),
        (&mounting, false, flags[0]),
        (&mounting, false, flags[1]),
        (&harmless, true, flags[0]),
    ] {
        let container = Container::with_script("stat -c '%u %g' /tmp/mapped/0-0 /tmp/mapped/below/0-0")
            .in_user_namespace()
            .edit(|spec| {
                spec["process"]["capabilities"] = json!({ "bounding": capabilities });
                if has_hook {
                    spec["hooks"] = json!({ "startContainer": [{ "path": "/bin/true" }] });
                }
            });
        let source = source(&container, &[[0, 0]]);
        need_id_mapping(&source)?;
        let other = container.beside("other");
        fs::create_dir(&other).unwrap();
        fs::create_dir(source.join("below")).unwrap();
        fill(&other, &[[0, 0]]);
        let container =
            container.edit(|spec| add_mount(spec, mapped(&source, &["rbind", "ridmap"], &[], &[])));
        let [below, above] = [source.join("below"), source].map(|path| path.display().to_string());
        let script = format!(
            "mount --bind {above} {above} && mount --bind {} {below} && {{ [ -z '{flags}' ] || mount {flags} {above}; }} && exec \"$@\"",
            other.display()
        );
        let run = container.run_with(NO_OPTIONS).called_by(["unshare", "--mount", "sh", "-c", &script, "sh"]);
        if capabilities == &harmless && !has_hook {
            assert_eq!(run.succeeds().stdout, "0 0\n0 0\n", "{flags}");
        } else if is_own() {
            let why = if flags.is_empty() { "source has submounts" } else { "is read-only on the host" };
            run.fails_with(why);
        }
        container.leaves_nothing();
    }
    Ok(())
}

fn crun_s_option_maps_too() -> Outcome {
    need_other_than("runc", "knows no mappings in options")?;
    let container = Container::with_script(SHOW).in_user_namespace();
    let source = source(&container, &[[100, 200], [101, 201]]);
    need_id_mapping(&source)?;
    let [user, _] = ROOT_OUTSIDE;
    let option = format!("idmap=uids=100-{}-1#101-{}-1;gids=@200-30-2", user + 5, user + 9);
    let container = container.edit(|spec| add_mount(spec, mapped(&source, &["bind", &option], &[], &[])));
    assert_eq!(container.says(), "100-200 5 30\n101-201 9 31");
    Ok(())
}

fn other_options_go_with_a_mapping() -> Outcome {
    need_other_than("crun", "leaves the propagation out")?;
    let container = Container::with_script(
        "touch /tmp/mapped/new 2>/dev/null || echo read-only; stat -c %u /tmp/mapped/100-200
         awk '$5 == \"/tmp/mapped\" { print $6, $7 }' /proc/self/mountinfo | grep -c nosuid.*nodev.*shared",
    );
    let source = source(&container, &[[100, 200]]);
    need_id_mapping(&source)?;
    let options = ["rbind", "ro", "nosuid", "nodev", "rshared"];
    let container = container
        .edit(|spec| add_mount(spec, mapped(&source, &options, &[[100, 1000, 1]], &[[200, 2000, 1]])));
    assert_eq!(container.says(), "read-only\n1000\n1");
    Ok(())
}

fn a_file_is_mapped() -> Outcome {
    let container = Container::with_args(["stat", "-c", "%u %g", "/tmp/mapped"]);
    let source = source(&container, &[[100, 200]]);
    need_id_mapping(&source)?;
    let container = container.edit(|spec| {
        add_mount(spec, mapped(&source.join("100-200"), &["bind"], &[[100, 7, 1]], &[[200, 8, 1]]));
    });
    assert_eq!(container.says(), "7 8");
    Ok(())
}

fn a_mount_that_is_no_bind_is_not_mapped() -> Outcome {
    need_other_than("crun", "maps others as well")?;
    let container = Container::new().edit(|spec| {
        let mut mount = mapped(Path::new("tmpfs"), &["nosuid"], &[[0, 7, 1]], &[[0, 8, 1]]);
        mount["type"] = json!("tmpfs");
        add_mount(spec, mount);
    });
    container.run_fails_with("id-mapped mounts are only supported for bind-mounts");
    Ok(())
}

fn a_mapping_needs_users_and_groups() {
    for field in ["uidMappings", "gidMappings"] {
        let container = Container::new();
        let source = source(&container, &[]);
        let container = container.edit(|spec| {
            let mut mount = mapped(&source, &["bind"], &[[0, 7, 1]], &[[0, 8, 1]]);
            mount.as_object_mut().unwrap().remove(field);
            add_mount(spec, mount);
        });
        container.run_fails_with("");
    }
}

fn an_option_without_any_mapping_is_refused() {
    for option in ["idmap", "ridmap"] {
        let container = Container::new();
        let source = source(&container, &[]);
        let container = container.edit(|spec| add_mount(spec, mapped(&source, &["bind", option], &[], &[])));
        let output = container.run_fails_with("");
        if is_own() {
            let text = "id-mapped mounts must have both uid and gid mappings specified";
            assert!(output.stderr.contains(text), "{output:#?}");
        }
    }
}

fn a_file_system_that_cannot_be_mapped_is_named() -> Outcome {
    need_own()?;
    let container = Container::new().edit(|spec| {
        add_mount(spec, mapped(Path::new("/proc/sys"), &["bind"], &[[0, 7, 1]], &[[0, 8, 1]]));
    });
    let output = container.run_fails_with(
        "config.json: /mounts/7/uidMappings: map the ids of bind \"/proc/sys\" on /tmp/mapped: invalid argument (EINVAL)",
    );
    assert!(output.stderr.contains("may not support id-mapped mounts"), "{output:#?}");
    Ok(())
}

fn the_source_is_left_as_it_is() -> Outcome {
    let container = Container::idle();
    let source = source(&container, &[[100, 200]]);
    need_id_mapping(&source)?;
    let container = container
        .edit(|spec| add_mount(spec, mapped(&source, &["bind"], &[[100, 1000, 1]], &[[200, 2000, 1]])));
    container.launch();
    let file = fs::metadata(source.join("100-200")).unwrap();
    assert_eq!((file.uid(), file.gid()), (100, 200));
    Ok(())
}

/// Ids are mapped before anything is mounted: what would be shown is what the earlier mount hides.
fn a_source_that_an_earlier_mount_covers_is_refused() -> Outcome {
    need_own()?;
    for in_user_namespace in [false, true] {
        for (earlier, named, options, covers) in [
            ("/home", "home", &["bind"][..], true),
            ("/home", "home/below", &["bind"], true),
            ("/link", "home", &["bind"], true),
            ("/home/below", "home", &["rbind"], true),
            ("/home/below", "home", &["bind"], false),
            ("/var", "home", &["rbind"], false),
        ] {
            let container = Container::with_args(["ls", "/tmp/mapped"]);
            let container = if in_user_namespace { container.in_user_namespace() } else { container };
            let rootfs = container.bundle.rootfs();
            fs::create_dir_all(rootfs.join("home/below")).unwrap();
            std::os::unix::fs::symlink("/home", rootfs.join("link")).unwrap();
            need_id_mapping(&rootfs)?;
            let container = container.edit(|spec| {
                add_mount(spec, json!({ "destination": earlier, "type": "tmpfs", "source": "t" }));
                add_mount(spec, mapped(&rootfs.join(named), options, &[[0, 5000, 10]], &[[0, 5000, 10]]));
            });
            if covers {
                let output = container.run_fails_with("config.json: /mounts/8/source: ");
                assert!(output.stderr.contains(" is covered by /mounts/7"), "{output:#?}");
            } else {
                container.says();
            }
        }
    }
    Ok(())
}
