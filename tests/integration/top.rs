//! `top`: resource usage, full-screen. Only this runtime has the command.

use serde_json::json;

use crate::support::host::{need_controller, need_own};
use crate::support::pty::ENDING_SIGNALS;
use crate::support::suite::suite;
use crate::support::{Container, Invocation, Outcome, Pty};

use super::stats::{Neighbour, UTF8, beginning};

suite![
    without_a_terminal_it_points_to_stats,
    a_terminal_of_80_columns_has_graphs_and_the_host,
    a_terminal_of_200_columns_has_all,
    a_narrow_and_low_terminal_has_containers_at_least,
    a_terminal_that_changes_its_size_is_painted_anew,
    keys_put_in_order_and_mark,
    a_container_is_shown_with_its_processes_and_back,
    one_that_is_named_is_shown_until_it_ends,
    a_process_cannot_write_to_the_terminal_by_its_name,
    a_terminal_is_as_before_whatever_ends_it,
    whoever_looks_all_the_time_hears_keys_and_signals,
    a_terminal_that_was_stopped_shows_what_was_asked_for_last,
    a_terminal_that_hands_on_several_keys_at_once_is_asked_for_each,
    a_terminal_without_utf8_gets_none,
    a_busy_loop_is_seen_with_its_limit,
];

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

fn top(container: &Container, words: &[&str]) -> Invocation {
    container.runtime().args(["top", "--interval=50ms"]).args(words)
}

fn in_terminal(container: &Container, columns: u16, rows: u16) -> Pty {
    let mut terminal = Pty::spawn(&top(container, &[]), columns, rows, UTF8);
    terminal.wait_for(beginning(&container.id));
    assert!(terminal.shown.is_alternate && terminal.shown.cursor_is_hidden);
    terminal
}

fn without_a_terminal_it_points_to_stats() -> Outcome {
    need_own()?;
    let container = Container::idling();
    top(&container, &[]).fails_with("standard output is not a capable terminal");
    top(&container, &[]).fails_with("runtime stats");
    for environment in [["-u", "TERM"], ["--", "TERM=dumb"], ["--", "TERM="]] {
        let dumb = Invocation::new("env").args(environment).args(top(&container, &[]).words());
        let mut terminal = Pty::spawn(&dumb, 80, 24, UTF8);
        assert_eq!(terminal.ends().code(), Some(1));
        assert!(terminal.written.contains("runtime stats") && !terminal.written.contains('\u{1b}'));
    }
    Ok(())
}

fn a_terminal_of_80_columns_has_graphs_and_the_host() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let mut terminal = in_terminal(&container, 80, 24);
    terminal.wait_until("there is a bar for each graph", |shown| {
        let bars = |line: Option<String>| line.is_some_and(|line| line.contains(BARS));
        bars(shown.line("CPU  ")) && bars(shown.line(&container.id))
    });
    let text = terminal.shown.text();
    for word in
        ["1 container", "MEM  ", "LOAD", "PRESSURE", "HISTORY", "MEM USAGE / LIMIT", "PIDS / LIMIT", "q quit"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!text.contains("NET"), "{text}");
    terminal.types("q");
    assert_eq!(terminal.ends().code(), Some(0));
    Ok(())
}

fn a_terminal_of_200_columns_has_all() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let mut terminal = in_terminal(&container, 200, 50);
    let text = terminal.shown.text();
    for word in ["CPU %", "MEM %", "IO READ/S / WRITE/S", "NET RX/S / TX/S", "PRESSURE CPU / MEM / IO"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(text.matches("HISTORY").count(), 2, "{text}");
    assert!(terminal.shown.lines()[49].contains("q quit"), "{text}");
    terminal.types("\x1b");
    assert_eq!(terminal.ends().code(), Some(0));
    Ok(())
}

fn a_narrow_and_low_terminal_has_containers_at_least() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let mut terminal = in_terminal(&container, 22, 3);
    assert!(terminal.shown.text().contains("CPU %"), "{}", terminal.shown.text());
    // In a terminal without any room it does no harm.
    terminal.resize(1, 1);
    terminal.types("\x1b[B?");
    terminal.wait_until("something is there", |shown| !shown.text().is_empty());
    terminal.types("q");
    assert_eq!(terminal.ends().code(), Some(0));
    Ok(())
}

fn a_terminal_that_changes_its_size_is_painted_anew() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let call = container.runtime().args(["top", "--interval=1h"]);
    let mut terminal = Pty::spawn(&call, 80, 24, UTF8);
    terminal.wait_for(&container.id);
    terminal.resize(200, 50);
    terminal.wait_for("NET RX/S");
    terminal.resize(60, 8);
    terminal.wait_until("there is no room for the host", |shown| {
        shown.text().contains(beginning(&container.id)) && !shown.text().contains("LOAD")
    });
    terminal.types("q");
    assert_eq!(terminal.ends().code(), Some(0));
    Ok(())
}

fn keys_put_in_order_and_mark() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let other = Neighbour::of(&container);
    let mut terminal = in_terminal(&container, 120, 24);
    terminal.wait_for("2 containers");
    for (key, word) in [
        ("m", "sort: memory"),
        ("p", "sort: pids"),
        ("i", "sort: io"),
        ("n", "sort: name"),
        ("c", "sort: cpu"),
    ] {
        terminal.types(key);
        terminal.wait_for(word);
    }
    terminal.types("n?");
    terminal.wait_for("sort by cpu");
    terminal.types(" ");
    terminal.wait_for("sort: name");
    // The second one by name.
    let second = container.id.as_str().max(other.container.id.as_str()).to_owned();
    terminal.types("\x1b[B\r");
    terminal.wait_until("the second one is shown alone", |shown| {
        shown.lines()[0].starts_with(&second) && shown.text().contains("COMMAND")
    });
    drop(terminal);
    container.on_id("pause").succeeds();
    let mut terminal = in_terminal(&container, 120, 24);
    terminal.wait_for("2 containers, 1 paused");
    Ok(())
}

fn a_container_is_shown_with_its_processes_and_back() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let mut terminal = in_terminal(&container, 80, 24);
    terminal.types("\r");
    terminal.wait_for("sleep 1000");
    let text = terminal.shown.text();
    for word in ["running, pid", "PIDS      2 of", "PRESSURE", "RSS", "esc back"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    terminal.types("\x1b");
    terminal.wait_for("1 container");
    // One that ends while it is shown makes room for the others.
    terminal.types("\r");
    terminal.wait_for("sleep 1000");
    container.delete_by_force();
    terminal.wait_for("0 containers");
    terminal.types("\r\x1b[A\x1b[6~q");
    assert_eq!(terminal.ends().code(), Some(0));
    Ok(())
}

fn one_that_is_named_is_shown_until_it_ends() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let mut terminal = Pty::spawn(&top(&container, &["--interval=1h", &container.id]), 200, 50, UTF8);
    terminal.wait_for("sleep 1000");
    assert!(!terminal.shown.text().contains("esc back"), "{}", terminal.shown.text());
    container.terminate();
    assert_eq!(terminal.ends().code(), Some(0));
    let mut terminal = Pty::spawn(&top(&container, &[&container.id]), 80, 24, UTF8);
    assert_eq!(terminal.ends().code(), Some(1));
    assert!(terminal.written.contains("container not running"), "{:?}", terminal.written);
    Ok(())
}

fn a_process_cannot_write_to_the_terminal_by_its_name() -> Outcome {
    need_own()?;
    // Clears the screen, sets a title, rings the bell.
    let container =
        Container::with_args(["sh", "-c", "sleep 1000; : \u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m größer"]);
    container.launch();
    let mut terminal = Pty::spawn(&top(&container, &[&container.id]), 120, 24, UTF8);
    terminal.wait_for("sleep 1000; : ?[2J?]0;x??31m größer");
    terminal.types("q");
    assert_eq!(terminal.ends().code(), Some(0));
    Ok(())
}

fn a_terminal_is_as_before_whatever_ends_it() -> Outcome {
    need_own()?;
    let container = Container::idling();
    for (signal, code) in ENDING_SIGNALS {
        let mut terminal = in_terminal(&container, 80, 24);
        terminal.signal(signal);
        assert_eq!(terminal.ends().code(), Some(code), "{signal}");
    }
    let mut terminal = in_terminal(&container, 80, 24);
    terminal.types("\x03");
    assert_eq!(terminal.ends().code(), Some(130));
    // An error, of which there is word on the usual screen.
    let mut terminal = in_terminal(&container, 80, 24);
    let away = container.beside("away");
    std::fs::rename(container.root(), &away).unwrap();
    let status = terminal.ends();
    std::fs::rename(&away, container.root()).unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(terminal.written.contains("\u{1b}[?1049lerror: read root"), "{:?}", terminal.shown.text());
    Ok(())
}

/// Nobody can look at so many containers in so short a time.
fn whoever_looks_all_the_time_hears_keys_and_signals() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let start = || {
        let call = container.runtime().args(["top", "--interval=1ns"]);
        let mut terminal = Pty::spawn(&call, 80, 24, UTF8);
        terminal.wait_for(beginning(&container.id));
        terminal
    };
    let mut terminal = start();
    terminal.types("n");
    terminal.wait_for("sort: name");
    terminal.types("q");
    assert_eq!(terminal.ends().code(), Some(0));
    let mut terminal = start();
    terminal.types("\x03");
    assert_eq!(terminal.ends().code(), Some(130));
    Ok(())
}

fn a_terminal_that_was_stopped_shows_what_was_asked_for_last() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let call = container.runtime().args(["top", "--interval=1h"]);
    let mut terminal = Pty::spawn(&call, 80, 24, UTF8);
    terminal.wait_for("sort: cpu");
    // Not only because it is time: the second look is over, and the third comes in an hour.
    terminal.wait_until("the processor time is known", |shown| {
        let line = shown.line(beginning(&container.id)).unwrap_or_default();
        line.split_whitespace().nth(1).is_some_and(|word| word.parse::<f64>().is_ok())
    });
    // Ctrl-S stops the output, Ctrl-Q lets it go on.
    terminal.types("\x13");
    terminal.types("nm");
    terminal.wait_until_silent();
    terminal.types("\x11");
    terminal.wait_for("sort: memory");
    terminal.types("q");
    assert_eq!(terminal.ends().code(), Some(0));
    Ok(())
}

fn a_terminal_that_hands_on_several_keys_at_once_is_asked_for_each() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let words = top(&container, &[]).words().join("' '");
    let script = format!("stty -icanon min 9 time 0; exec '{words}'");
    let mut terminal = Pty::spawn(&Invocation::new("sh").args(["-c", &script]), 80, 24, UTF8);
    terminal.wait_for(beginning(&container.id));
    terminal.types("n");
    terminal.wait_for("sort: name");
    terminal.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(terminal.ends_unseen().code(), Some(143));
    Ok(())
}

fn a_terminal_without_utf8_gets_none() -> Outcome {
    need_own()?;
    let container = Container::idling();
    let mut terminal = Pty::spawn(&top(&container, &[]), 40, 24, "C");
    terminal.wait_until("there is a bar", |shown| {
        shown.line("MEM  ").is_some_and(|line| line.contains(['_', '.', '-', '=']))
    });
    assert!(terminal.written.is_ascii(), "{}", terminal.shown.text());
    Ok(())
}

fn a_busy_loop_is_seen_with_its_limit() -> Outcome {
    need_own()?;
    need_controller("cpu")?;
    need_controller("memory")?;
    let container = Container::limited(
        "while :; do :; done",
        &json!({ "cpu": { "quota": 20_000, "period": 100_000 }, "memory": { "limit": 33_554_432 } }),
    );
    container.launch();
    let call = container.runtime().args(["top", "--interval=1s", &container.id]);
    let mut terminal = Pty::spawn(&call, 120, 24, UTF8);
    terminal.wait_until("the processor time is near the quota", |shown| {
        let line = shown.line("CPU  ").unwrap_or_default();
        let percent = line.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok());
        line.contains("of 20.00 %") && percent.is_some_and(|percent| (12.0..28.0).contains(&percent))
    });
    // The graph is drawn up to the limit.
    terminal.wait_until("the graph is near its top", |shown| {
        shown.line("CPU  ").is_some_and(|line| line.contains(['▆', '▇', '█']))
    });
    assert!(terminal.shown.text().contains("of 32.0MiB"), "{}", terminal.shown.text());
    Ok(())
}
