//! Network devices moved from the host into the container: config-linux.md § Network Devices.
//!
//! Each test runs in a network namespace of its own instead of the host's, with a pair of devices.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::bundle::{join_namespace, remove_namespace};
use crate::support::container::NO_OPTIONS;
use crate::support::host::{kind, need, need_other_than, need_own, need_program};
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome, Output};

suite![
    a_device_keeps_what_it_has_but_for_addresses_of_the_link,
    a_device_is_given_another_name,
    a_template_is_filled_in_by_the_kernel,
    several_devices_move_at_once,
    a_device_goes_to_a_namespace_that_is_joined_and_stays_there,
    a_device_whose_number_is_taken_gets_another,
    sysctls_of_a_device_are_set,
    hooks_find_the_device_in_the_container,
    a_device_goes_to_a_user_namespace,
    devices_return_when_the_container_fails,
    devices_return_from_a_namespace_that_is_joined,
    a_device_that_is_not_there_is_named,
    a_name_that_is_taken_is_refused,
    a_device_that_cannot_move_is_named_and_the_others_return,
    a_device_for_no_network_namespace_is_refused,
    a_device_for_the_runtimes_own_namespace_is_refused,
];

/// What this makes is all that the tests need: a pair of devices, one of them with everything that a device can have.
pub const PAIR: &str = "ip link add hk0 type veth peer name hk1 && \
    ip link set hk0 address 02:11:22:33:44:55 mtu 1400 up && ip link set hk1 up && \
    ip addr add 10.9.8.7/24 broadcast 10.9.8.255 dev hk0 && ip addr add 10.9.7.1 peer 10.9.7.2/32 dev hk0 && \
    ip addr add 169.254.9.9/16 scope link dev hk0 && \
    { ! test -e /proc/net/if_inet6 || ip addr add fd00:9::1/64 nodad dev hk0; }";

/// What the host shows of the device; not how long its addresses are good.
const LOOK: &str =
    "ip addr show dev hk0 | grep -v -e valid_lft -e fe80 | sed -e 's/^[0-9]*: //' -e 's/,LOWER_UP//'";

pub fn need_pairs() -> Outcome {
    need_program("unshare")?;
    need_program("ip")?;
    let made = Invocation::new("unshare").args(["--net", "sh", "-c", PAIR]).output();
    need(made.code() == 0, format_args!("virtual Ethernet: {}", made.stderr.trim()))?;
    need_other_than("runc", "knows no network devices before 1.4")
}

/// `run` in a network namespace of its own, after this script and before that one.
pub fn run_in_a_net(container: &Container, before: &str, after: &str) -> Output {
    let script = format!("{before} || exit 99; \"$@\"; status=$?; {after}; exit $status");
    Invocation::new("unshare")
        .args(["--net", "sh", "-c", &script, "sh"])
        .args(container.run_with(NO_OPTIONS).words())
        .output()
}

fn with_devices(container: Container, devices: Value) -> Container {
    container.edit(|spec| spec["linux"]["netDevices"] = devices)
}

fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

#[track_caller]
fn succeeded(output: &Output) -> &str {
    assert_eq!(output.code(), 0, "{output:#?}");
    &output.stdout
}

fn a_device_keeps_what_it_has_but_for_addresses_of_the_link() -> Outcome {
    need_pairs()?;
    let container = with_devices(Container::with_script("ip addr show dev hk0"), json!({ "hk0": {} }));
    let output = run_in_a_net(&container, PAIR, "ip link show dev hk0 >/dev/null 2>&1 && echo still here");
    let said = succeeded(&output);
    for text in ["UP", "mtu 1400", "02:11:22:33:44:55", "inet 10.9.8.7/24 brd 10.9.8.255 scope global hk0"] {
        assert!(said.contains(text), "{text:?} is not in {said}");
    }
    assert!(said.contains("fd00:9::1/64") || !has_ipv6() || kind() != "runtime", "{said}");
    assert!(!said.contains("169.254"), "{said}");
    assert!(!said.contains("still here"), "{said}");
    container.leaves_nothing();
    need_own()?;
    assert!(said.contains("10.9.7.1 peer 10.9.7.2/32"), "{said}");
    Ok(())
}

fn a_device_is_given_another_name() -> Outcome {
    need_pairs()?;
    let container = with_devices(
        Container::with_script("ip addr show dev inside0"),
        json!({ "hk0": { "name": "inside0" } }),
    );
    let output = run_in_a_net(&container, PAIR, ":");
    let said = succeeded(&output);
    assert!(said.contains("10.9.8.7/24") && said.contains("UP"), "{said}");
    Ok(())
}

fn a_template_is_filled_in_by_the_kernel() -> Outcome {
    need_pairs()?;
    need_other_than("crun", "looks for a device with that very name")?;
    let container = with_devices(
        Container::with_script("ip addr show dev eth0; ip addr show dev eth1"),
        json!({ "hk0": { "name": "eth%d" }, "hk1": { "name": "eth%d" } }),
    );
    let output = run_in_a_net(&container, PAIR, ":");
    let said = succeeded(&output);
    assert!(said.contains("10.9.8.7/24"), "{said}");
    Ok(())
}

fn several_devices_move_at_once() -> Outcome {
    need_pairs()?;
    // Each takes the name of the other.
    let devices = json!({ "hk0": { "name": "hk1" }, "hk1": { "name": "hk0" } });
    let container = with_devices(Container::with_script("ip addr show dev hk1"), devices);
    let output = run_in_a_net(&container, PAIR, ":");
    assert!(succeeded(&output).contains("10.9.8.7/24"), "{output:#?}");
    container.leaves_nothing();
    Ok(())
}

/// A running container whose network namespace can be joined.
fn neighbour() -> Container {
    let neighbour = Container::idle();
    neighbour.launch();
    neighbour
}

fn joining(container: Container, neighbour: &Container) -> Container {
    container.edit(|spec| join_namespace(spec, "network", format!("/proc/{}/ns/net", neighbour.pid())))
}

fn devices_of(container: &Container) -> String {
    fs::read_to_string(format!("/proc/{}/net/dev", container.pid())).unwrap()
}

fn a_device_goes_to_a_namespace_that_is_joined_and_stays_there() -> Outcome {
    need_pairs()?;
    let neighbour = neighbour();
    let devices = json!({ "hk0": { "name": "stays0" } });
    let container =
        joining(with_devices(Container::with_script("ip addr show dev stays0"), devices), &neighbour);
    let output = run_in_a_net(&container, PAIR, ":");
    assert!(succeeded(&output).contains("10.9.8.7/24"), "{output:#?}");
    container.leaves_nothing();
    // Its other end has gone with the test's host, and so has it, sooner or later: a second host keeps another one.
    let container = joining(
        with_devices(Container::with_script("true"), json!({ "hk0": { "name": "kept0" } })),
        &neighbour,
    );
    let look = format!("cat /proc/{}/net/dev", neighbour.pid());
    let output = run_in_a_net(&container, PAIR, &look);
    assert!(succeeded(&output).contains("kept0:"), "{output:#?}");
    Ok(())
}

/// In both namespaces the first device made has the same number.
fn a_device_whose_number_is_taken_gets_another() -> Outcome {
    need_pairs()?;
    let neighbour = neighbour();
    let own = Invocation::new("nsenter")
        .args(["--target", &neighbour.pid().to_string(), "--net", "sh", "-c", PAIR])
        .output();
    need(own.code() == 0, format_args!("nsenter: {}", own.stderr.trim()))?;
    let devices = json!({ "hk0": { "name": "other0" } });
    let container =
        joining(with_devices(Container::with_script("ip addr show dev other0"), devices), &neighbour);
    let output = run_in_a_net(&container, PAIR, ":");
    assert!(succeeded(&output).contains("mtu 1400"), "{output:#?}");
    Ok(())
}

fn sysctls_of_a_device_are_set() -> Outcome {
    need_pairs()?;
    let container = with_devices(
        Container::with_args(["cat", "/proc/sys/net/ipv4/conf/in0/rp_filter"]),
        json!({ "hk0": { "name": "in0" } }),
    )
    .edit(|spec| spec["linux"]["sysctl"] = json!({ "net.ipv4.conf.in0.rp_filter": "2" }));
    assert_eq!(succeeded(&run_in_a_net(&container, PAIR, ":")), "2\n");
    Ok(())
}

fn hooks_find_the_device_in_the_container() -> Outcome {
    need_pairs()?;
    need_program("nsenter")?;
    let container = with_devices(Container::with_script("true"), json!({ "hk0": {} }));
    let log = container.beside("log");
    let script = format!(
        "pid=$(tr -d ' \\n' | sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); \
         nsenter --target $pid --net ip addr show dev hk0 >{}",
        log.display()
    );
    let container = container.edit(|spec| {
        spec["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
    });
    succeeded(&run_in_a_net(&container, PAIR, ":"));
    let seen = fs::read_to_string(log).unwrap();
    assert!(seen.contains("10.9.8.7/24"), "{seen}");
    Ok(())
}

fn a_device_goes_to_a_user_namespace() -> Outcome {
    need_pairs()?;
    let container = with_devices(Container::with_script("ip addr show dev hk0"), json!({ "hk0": {} }));
    let container = container.in_user_namespace();
    assert!(succeeded(&run_in_a_net(&container, PAIR, ":")).contains("10.9.8.7/24"));
    container.leaves_nothing();
    Ok(())
}

/// The container fails when everything is ready: its program is not there.
fn devices_return_when_the_container_fails() -> Outcome {
    need_pairs()?;
    need_own()?;
    for devices in [json!({ "hk0": {} }), json!({ "hk0": { "name": "in0" }, "hk1": { "name": "in%d" } })] {
        let container = with_devices(Container::with_args(["/not/there"]), devices);
        let output = run_in_a_net(&container, &format!("{PAIR}; {LOOK}; echo ==="), LOOK);
        assert_eq!(output.code(), 1, "{output:#?}");
        assert!(output.stderr.contains("/not/there"), "{output:#?}");
        let (before, after) = output.stdout.split_once("===\n").unwrap();
        assert!(before.contains("10.9.8.7/24") && before.contains("169.254"), "{output:#?}");
        assert_eq!(after, before);
        container.leaves_nothing();
    }
    Ok(())
}

fn devices_return_from_a_namespace_that_is_joined() -> Outcome {
    need_pairs()?;
    need_own()?;
    let neighbour = neighbour();
    let container = joining(
        with_devices(Container::with_args(["/not/there"]), json!({ "hk0": { "name": "in0" } })),
        &neighbour,
    );
    let output = run_in_a_net(&container, &format!("{PAIR}; {LOOK}; echo ==="), LOOK);
    let (before, after) = output.stdout.split_once("===\n").unwrap();
    assert_eq!((output.code(), after), (1, before), "{output:#?}");
    assert!(!devices_of(&neighbour).contains("in0"));
    Ok(())
}

fn a_device_that_is_not_there_is_named() -> Outcome {
    need_pairs()?;
    let container = with_devices(Container::new(), json!({ "hk7": {} }));
    let output = run_in_a_net(&container, PAIR, ":");
    assert_ne!(output.code(), 0, "{output:#?}");
    assert!(output.stderr.contains("hk7"), "{output:#?}");
    container.leaves_nothing();
    need_own()?;
    let text = "error: config.json: /linux/netDevices/hk7: find network device \"hk7\" in the runtime's network namespace: \
                no such device (ENODEV)\n";
    assert_eq!(output.stderr, text);
    Ok(())
}

fn a_name_that_is_taken_is_refused() -> Outcome {
    need_pairs()?;
    let container = with_devices(Container::new(), json!({ "hk0": { "name": "lo" } }));
    let output = run_in_a_net(&container, PAIR, LOOK);
    assert_ne!(output.code(), 0, "{output:#?}");
    container.leaves_nothing();
    need_own()?;
    let text = "error: config.json: /linux/netDevices/hk0: network device \"lo\" already exists in the \
                container's network namespace (set another \"name\")\n";
    assert_eq!(output.stderr, text);
    assert!(output.stdout.contains("10.9.8.7/24"), "{output:#?}");
    Ok(())
}

fn a_device_that_cannot_move_is_named_and_the_others_return() -> Outcome {
    need_pairs()?;
    need_own()?;
    let container = with_devices(Container::new(), json!({ "hk0": {}, "lo": { "name": "other" } }));
    let output = run_in_a_net(&container, &format!("{PAIR}; {LOOK}; echo ==="), LOOK);
    assert_eq!(output.code(), 1, "{output:#?}");
    let text = "error: config.json: /linux/netDevices/lo: move network device \"lo\" to the container's network namespace: \
                invalid argument (EINVAL) (this kind of device cannot be moved between namespaces)\n";
    assert_eq!(output.stderr, text);
    let (before, after) = output.stdout.split_once("===\n").unwrap();
    assert_eq!(after, before);
    container.leaves_nothing();
    Ok(())
}

fn a_device_for_no_network_namespace_is_refused() -> Outcome {
    need_own()?;
    let container =
        with_devices(Container::new(), json!({ "hk0": {} })).edit(|spec| remove_namespace(spec, "network"));
    container.run_fails_with(
        "config.json: /linux/netDevices: moving network devices requires a network namespace (add {\"type\": \"network\"} to \
         /linux/namespaces)",
    );
    Ok(())
}

fn a_device_for_the_runtimes_own_namespace_is_refused() -> Outcome {
    need_pairs()?;
    need_own()?;
    let container = with_devices(Container::new(), json!({ "hk0": { "name": "other" } }))
        .edit(|spec| join_namespace(spec, "network", "/proc/self/ns/net"));
    let output = run_in_a_net(&container, PAIR, LOOK);
    assert_eq!(output.code(), 1, "{output:#?}");
    let text = "is the runtime's own network namespace (/linux/netDevices would affect the host)";
    assert!(output.stderr.contains(text), "{output:#?}");
    assert!(output.stdout.contains("10.9.8.7/24"), "{output:#?}");
    container.leaves_nothing();
    Ok(())
}
