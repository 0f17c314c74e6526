//! `features`: what engines read before they create a container.

use std::fs;

use serde_json::Value;

use crate::support::container::NO_OPTIONS;
use crate::support::host::{need_other_than, need_own};
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome};

suite![
    the_document_is_what_engines_look_for,
    it_has_runcs_form,
    it_lists_what_a_bundle_may_ask_for,
    a_mount_option_on_the_list_is_known,
];

fn document() -> Value {
    serde_json::from_str(&Invocation::of_the_runtime().arg("features").succeeds().stdout).unwrap()
}

fn names(document: &Value, pointer: &str) -> Vec<String> {
    let list = document.pointer(pointer).and_then(Value::as_array);
    let list = list.unwrap_or_else(|| panic!("{pointer} is no list"));
    list.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// CRI-O refuses a document without versions, and looks for "rro" and idmap; dockerd shows all of it.
fn the_document_is_what_engines_look_for() {
    let document = document();
    for version in ["ociVersionMin", "ociVersionMax"] {
        assert!(document[version].as_str().unwrap().starts_with("1."), "{document}");
    }
    assert!(names(&document, "/mountOptions").contains(&"rro".to_owned()));
    assert_eq!(document["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    assert_eq!(document["linux"]["cgroup"]["v2"], true);
    assert!(document["annotations"]["org.opencontainers.runc.checkpoint.enabled"].is_string());
}

fn it_has_runcs_form() -> Outcome {
    need_other_than("crun", "indents by two and has another order")?;
    let text = Invocation::of_the_runtime().arg("features").succeeds().stdout;
    assert!(text.starts_with("{\n    \"ociVersionMin\": \"1.0.0\",\n    \"ociVersionMax\": "), "{text}");
    assert!(
        text.ends_with("    ]\n}\n") || text.ends_with("    \"potentiallyUnsafeConfigAnnotations\": []\n}\n")
    );
    let order = [
        "mountOptions",
        "linux",
        "namespaces",
        "capabilities",
        "cgroup",
        "apparmor",
        "selinux",
        "annotations",
    ];
    let places: Vec<_> = order.iter().map(|key| text.find(&format!("\"{key}\": ")).unwrap()).collect();
    assert!(places.is_sorted(), "{text}");
    let options = names(&serde_json::from_str(&text).unwrap(), "/mountOptions");
    assert!(options.is_sorted(), "{options:?}");
    Ok(())
}

fn it_lists_what_a_bundle_may_ask_for() {
    let document = document();
    for kind in ["cgroup", "ipc", "mount", "network", "pid", "uts"] {
        assert!(names(&document, "/linux/namespaces").contains(&kind.to_owned()), "{kind}");
    }
    let capabilities = names(&document, "/linux/capabilities");
    assert_eq!((capabilities.len(), capabilities[0].as_str()), (41, "CAP_CHOWN"));
    assert_eq!(capabilities[40], "CAP_CHECKPOINT_RESTORE");
    let hooks = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    assert_eq!(names(&document, "/hooks"), hooks);
}

fn a_mount_option_on_the_list_is_known() -> Outcome {
    need_own()?;
    // These say how something is mounted that an option alone does not make.
    let not_alone = ["remount", "idmap", "ridmap"];
    let options = names(&document(), "/mountOptions");
    let container = Container::new();
    let source = container.beside("source");
    fs::create_dir(&source).unwrap();
    for option in options.iter().filter(|option| !not_alone.contains(&option.as_str())) {
        let kind = if option == "tmpcopyup" { "tmpfs" } else { "bind" };
        let bind = if kind == "bind" { "rbind" } else { "rw" };
        let mount = serde_json::json!({
            "destination": "/mnt", "type": kind, "source": source, "options": [bind, option]
        });
        let mut spec = container.bundle.spec.clone();
        crate::support::bundle::add_mount(&mut spec, mount);
        container.bundle.write_raw(&spec.to_string());
        let output = container.run_with(NO_OPTIONS).output();
        assert_eq!(output.code(), 0, "{option}: {output:#?}");
    }
    Ok(())
}
