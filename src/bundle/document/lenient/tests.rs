use oci_spec::runtime::{LinuxSchedulerFlag, Spec};

use super::*;

fn decoded(text: &str) -> Spec {
    decode(text.as_bytes()).0.unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Returns the message and the path of the value that it is about.
fn refused(text: &str) -> (String, String) {
    let (decoded, findings) = decode::<Spec>(text.as_bytes());
    let segment = |segment: &Segment| match segment {
        Segment::Member(name) => format!("/{name}"),
        Segment::Element(index) => format!("/{index}"),
    };
    (decoded.unwrap_err().to_string(), findings.path.iter().map(segment).collect())
}

#[test]
fn null_is_nothing_wherever_it_stands() {
    let spec = decoded(
        r#"{"ociVersion": null, "hostname": null, "root": {"path": null, "readonly": null}, "mounts":
        [{"destination": null, "options": null}], "process": {"terminal": null, "user": {"uid": null,
        "additionalGids": null}, "args": [null, "a"], "cwd": null, "capabilities": {"bounding": null}},
        "annotations": null, "linux": {"namespaces": [{"type": "pid", "path": null}], "sysctl": null,
        "resources": {"pids": {"limit": null}, "devices": [null], "memory": {"limit": null}}}}"#,
    );
    assert_eq!((spec.version().as_str(), spec.hostname()), ("", &None));
    let process = spec.process().as_ref().unwrap();
    assert_eq!((process.user().uid(), process.args()), (0, &Some(vec![String::new(), "a".into()])));
    let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
    assert_eq!(resources.pids().as_ref().unwrap().limit(), 0);
    assert!(!resources.devices().as_ref().unwrap()[0].allow());
    assert_eq!(decoded("null").version(), "");
}

#[test]
fn a_process_without_a_user_is_roots() {
    let spec = decoded(r#"{"ociVersion": "1", "process": {"cwd": "/"}}"#);
    assert_eq!(spec.process().as_ref().unwrap().user().uid(), 0);
    let spec = decoded(r#"{"ociVersion": null, "process": {"user": {"uid": 7, "gid": 0}, "cwd": "/"}}"#);
    assert_eq!(spec.process().as_ref().unwrap().user().uid(), 7);
}

#[test]
fn flags_of_a_scheduler_have_the_names_of_the_specification() {
    let spec = decoded(
        r#"{"ociVersion": "1", "process": {"cwd": "/", "scheduler": {"policy": "SCHED_RR", "flags":
        ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_RECLAIM"]}}}"#,
    );
    let scheduler = spec.process().as_ref().unwrap().scheduler().as_ref().unwrap();
    use LinuxSchedulerFlag as F;
    let expected = [F::SchedResetOnFork, F::SchedFlagDLOverrun, F::SchedFlagReclaim];
    assert_eq!(scheduler.flags().as_deref().unwrap(), expected);
}

#[test]
fn lists_of_processors_may_have_blanks_and_empty_elements() {
    let affinity = |initial: &str| {
        let text = format!(
            "{{\"ociVersion\": null, \"process\": {{\"cwd\": \"/\", \"execCPUAffinity\": {{\"initial\": {initial:?}}}}}}}"
        );
        decoded(&text).process().as_ref().unwrap().exec_cpu_affinity().as_ref().unwrap().initial().clone()
    };
    assert_eq!(affinity(" 0, 3-4,").as_deref(), Some("0,3-4"));
    assert_eq!(affinity(""), None);
}

#[test]
fn a_limit_may_need_all_of_64_bits() {
    let text = r#"{"ociVersion": "1", "linux": {"resources": {"hugepageLimits": [{"pageSize": "2MB", "limit":
        18446744073709551615}]}}}"#;
    let spec = decoded(text);
    let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
    assert_eq!(resources.hugepage_limits().as_ref().unwrap()[0].limit(), i64::MAX);
    let (message, place) = refused(&text.replace("hugepageLimits", "pids").replace(['[', ']'], ""));
    assert!(message.starts_with("invalid value: integer `18446744073709551615`, expected i64"), "{message}");
    assert_eq!(place, "/linux/resources/pids/limit");
}

#[test]
fn other_platforms_may_say_what_they_like() {
    let spec = decoded(r#"{"windows": {"layerFolders": 5}, "vm": [], "zos": "x", "ociVersion": "1"}"#);
    assert_eq!(spec.version(), "1");
    assert!(spec.windows().is_none());
}

#[test]
fn what_is_still_wrong_is_named_by_its_place() {
    let linux = |text: &str| refused(&format!("{{\"ociVersion\": \"1\", \"linux\": {{{text}}}}}"));
    let (message, place) = linux(r#""namespaces": [{"type": "pid"}, {"type": "space"}]"#);
    assert!(message.starts_with("unknown variant `space`, expected one of `mount`"), "{message}");
    assert_eq!(place, "/linux/namespaces/1/type");
    let (message, place) = linux(r#""memoryPolicy": {}"#);
    assert!(message.starts_with("invalid memory policy mode \"\", expected one of MPOL_"), "{message}");
    assert_eq!(place, "/linux/memoryPolicy/mode");
    let (message, place) = linux(r#""memoryPolicy": {"mode": "MPOL_BIND", "flags": ["no"]}"#);
    assert!(message.starts_with("invalid memory policy flag \"no\""), "{message}");
    assert_eq!(place, "/linux/memoryPolicy/flags/0");
    assert_eq!(refused("{} x").0, "trailing characters at line 1 column 4");
}
