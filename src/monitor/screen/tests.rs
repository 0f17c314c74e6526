use super::*;
use crate::cgroup::Pressure;
use crate::monitor::Rates;
use crate::monitor::host::HostMemory;
use crate::monitor::tests::{bare, example};
use crate::monitor::text::width;

fn size(columns: usize, rows: usize) -> Size {
    Size { columns, rows }
}

/// Three containers with a history.
fn data() -> Data {
    let mut data = Data::new();
    let mut paused = example("b");
    paused.status = Status::Paused;
    paused.rates = Rates::default();
    data.seen = vec![example("a-container-of-mine"), paused, bare("c")];
    for eighths in 0..8 {
        data.host_history.remember(Some(eighths * 1_250), Some(eighths << 30));
        for id in ["a-container-of-mine", "b"] {
            let (_, history) = data.history.entry(id.to_owned()).or_default();
            history.remember(Some(eighths * 625), Some(eighths << 23));
        }
    }
    data.host.processors = 4;
    data.host.memory = Some(HostMemory { total: 8 << 30, available: 5 << 30 });
    data.host.load = Some("0.10 0.20 0.30".to_owned());
    data.host.pressure = Pressure { cpu: Some(1.5), memory: Some(0.0), io: None };
    data.host_cpu = Some(1_234);
    data
}

fn shown(view: &View, data: &Data, size: Size) -> Vec<String> {
    view.lines(data, size).into_iter().map(|line| line.text.trim_end().to_owned()).collect()
}

fn all() -> View {
    View::new(None, Charset::Utf8)
}

#[test]
fn all_containers_in_80_columns() {
    assert_eq!(
        shown(&all(), &data(), size(80, 12)),
        [
            "3 containers, 1 paused",
            "CPU               ▁▂▃▄▅▆▇█   12.34 % of 4 processors",
            "MEM               ▁▂▃▄▅▆▇█   37.50 % 3.00GiB of 8.00GiB",
            "LOAD  0.10 0.20 0.30   PRESSURE  cpu 1.5  memory 0.0  io -",
            "",
            "ID                    CPU %  HISTORY   MEM USAGE / LIMIT  HISTORY   PIDS / LIMIT",
            "a-container-of-mine   25.13  ▁▂▃▄▅▆▇█  48.0MiB / 64.0MiB  ▁▂▃▄▅▆▇█       3 / 100",
            "b                    paused  ▁▂▃▄▅▆▇█  48.0MiB / 64.0MiB  ▁▂▃▄▅▆▇█       3 / 100",
            "c                         -                  - /       -                 1 /   -",
            "",
            "",
            "sort: cpu   q quit   ? help   c m p i n sort   enter details"
        ]
    );
}

#[test]
fn all_containers_in_200_columns() {
    assert_eq!(
        shown(&all(), &data(), size(200, 12)),
        [
            "3 containers, 1 paused",
            "CPU                                   ▁▂▃▄▅▆▇█   12.34 % of 4 processors",
            "MEM                                   ▁▂▃▄▅▆▇█   37.50 % 3.00GiB of 8.00GiB",
            "LOAD  0.10 0.20 0.30   PRESSURE  cpu 1.5  memory 0.0  io -",
            "",
            "ID                    CPU %  HISTORY               MEM USAGE / LIMIT  HISTORY                MEM %  PIDS / LIMIT  IO READ/S / WRITE/S    NET RX/S / TX/S  PRESSURE CPU / MEM / IO",
            "a-container-of-mine   25.13              ▁▂▃▄▅▆▇█  48.0MiB / 64.0MiB              ▁▂▃▄▅▆▇█   75.00       3 / 100    1.00MiB /      0B  1.00KiB /     50B        1.2 /  0.0 / 12.5",
            "b                    paused              ▁▂▃▄▅▆▇█  48.0MiB / 64.0MiB              ▁▂▃▄▅▆▇█   75.00       3 / 100          - /       -        - /       -        1.2 /  0.0 / 12.5",
            "c                         -                              - /       -                             -       1 /   -          - /       -        - /       -          - /    - /    -",
            "",
            "",
            "sort: cpu   q quit   ? help   c m p i n sort   enter details"
        ]
    );
}

#[test]
fn all_containers_in_40_columns_without_utf8() {
    let view = View::new(None, Charset::Ascii);
    assert_eq!(
        shown(&view, &data(), size(40, 8)),
        [
            "3 containers, 1 paused",
            "ID              CPU %  MEM USAGE / LIMIT",
            "a-container-~   25.13  48.0MiB / 64.0MiB",
            "b              paused  48.0MiB / 64.0MiB",
            "c                   -        - /       -",
            "",
            "",
            "sort: cpu   q quit   ? help   c m p i n~"
        ]
    );
}

#[test]
fn one_container_in_80_columns() {
    let view = View::new(Some("a-container-of-mine"), Charset::Utf8);
    let mut data = data();
    let own = i32::try_from(std::process::id()).unwrap();
    data.update_processes(&mut Watch::new(), Ok(vec![own]));
    let lines = shown(&view, &data, size(80, 16));
    assert_eq!(
        lines[..9],
        [
            "a-container-of-mine  running, pid 4711",
            "CPU       25.13 % of 50.00 %                                            ▁▂▃▄▅▆▇█",
            "MEMORY    48.0MiB of 64.0MiB (75.00 %)                                  ▁▂▃▄▅▆▇█",
            "          plus 12.0MiB inactive file cache; OOM kills: 1",
            "PIDS      3 of 100",
            "IO        5.00MiB read (1.00MiB/s), 1.50KiB written (0B/s)",
            "NETWORK   2.00KiB received (1.00KiB/s), 100B sent (50B/s)",
            "PRESSURE  cpu 1.2  memory 0.0  io 12.5",
            ""
        ]
    );
    assert!(lines[9].contains("PID") && lines[9].contains("COMMAND"), "{lines:#?}");
    assert!(lines[10].contains(&own.to_string()), "{lines:#?}");
    assert_eq!(lines[15], "q quit   ? help   c m n sort");
    data.update_processes(&mut Watch::new(), Err("nobody knows".to_owned()));
    assert!(shown(&view, &data, size(80, 16)).contains(&"nobody knows".to_owned()));
}

#[test]
fn nothing_is_wider_or_higher_than_the_terminal() {
    let data = data();
    let mut help = all();
    help.press(Key::Letter('?'), &data, size(80, 24));
    for view in [all(), View::new(Some("b"), Charset::Utf8), View::new(Some("gone"), Charset::Utf8), help] {
        for (columns, rows) in
            (0..220).step_by(7).flat_map(|columns| (0..14).map(move |rows| (columns, rows)))
        {
            let lines = view.lines(&data, size(columns, rows));
            assert!(lines.len() <= rows, "{columns} {rows}");
            assert!(lines.iter().all(|line| width(&line.text) <= columns), "{columns} {rows} {lines:#?}");
        }
    }
}

#[test]
fn the_marked_container_stays_in_sight() {
    let mut data = Data::new();
    data.seen = (0..30).map(|number| bare(&format!("c{number:02}"))).collect();
    let mut view = all();
    let marked = |view: &View| {
        let lines = view.lines(&data, size(80, 10));
        let mut marked = lines.into_iter().filter(|line| line.style == Style::Inverse);
        marked.next().map(|line| line.text.split_whitespace().next().unwrap().to_owned())
    };
    assert_eq!(marked(&view).as_deref(), Some("c00"));
    for (key, expected) in [
        (Key::Down, "c01"),
        (Key::PageDown, "c06"),
        (Key::Up, "c05"),
        (Key::End, "c29"),
        (Key::Down, "c29"),
        (Key::PageUp, "c24"),
        (Key::Home, "c00"),
        (Key::Up, "c00"),
    ] {
        assert_eq!(view.press(key, &data, size(80, 10)), Then::Paint);
        assert_eq!(marked(&view).as_deref(), Some(expected), "{key:?}");
    }
}

#[test]
fn containers_are_put_in_order_and_the_mark_goes_along() {
    let mut data = data();
    data.seen[0].rates.cpu = Some(1);
    data.seen[2].rates.cpu = Some(2);
    data.seen[2].usage.as_mut().unwrap().pids = Some(9);
    let mut view = all();
    let order =
        |view: &View| view.in_order(&data.seen).iter().map(|seen| seen.id.clone()).collect::<Vec<_>>();
    assert_eq!(order(&view), ["c", "a-container-of-mine", "b"]);
    view.press(Key::Down, &data, size(80, 24));
    for (letter, expected, place) in [
        ('n', ["a-container-of-mine", "b", "c"], 0),
        ('p', ["c", "a-container-of-mine", "b"], 1),
        ('m', ["a-container-of-mine", "b", "c"], 0),
        ('i', ["a-container-of-mine", "b", "c"], 0),
        ('C', ["c", "a-container-of-mine", "b"], 1),
        ('x', ["c", "a-container-of-mine", "b"], 1),
    ] {
        assert_eq!(view.press(Key::Letter(letter), &data, size(80, 24)), Then::Paint);
        assert_eq!(order(&view), expected, "{letter}");
        assert_eq!(view.mark(&data.seen), place, "{letter}");
    }
}

#[test]
fn enter_shows_one_alone_and_escape_all_again() {
    let mut data = data();
    let mut view = all();
    assert_eq!(view.press(Key::Enter, &data, size(80, 24)), Then::Look);
    assert_eq!(view.alone(), Some("a-container-of-mine"));
    assert_eq!(view.press(Key::Escape, &data, size(80, 24)), Then::Paint);
    assert_eq!(view.alone(), None);
    assert_eq!(view.press(Key::Escape, &data, size(80, 24)), Then::End);
    view.press(Key::Enter, &data, size(80, 24));
    data.seen.remove(0);
    view.settle(&data);
    assert_eq!(view.alone(), None);
    // With a single container there is no other view to return to, and nothing to select.
    let mut one = View::new(Some("b"), Charset::Utf8);
    assert_eq!(one.press(Key::Backspace, &data, size(80, 24)), Then::Paint);
    assert_eq!(one.alone(), Some("b"));
    assert_eq!(one.press(Key::Escape, &data, size(80, 24)), Then::End);
    let mut nobody = all();
    assert_eq!(nobody.press(Key::Enter, &Data::new(), size(80, 24)), Then::Look);
    assert_eq!(nobody.alone(), None);
}

#[test]
fn help_goes_with_any_key_but_q_which_ends() {
    let data = data();
    let mut view = all();
    assert_eq!(view.press(Key::Letter('?'), &data, size(80, 24)), Then::Paint);
    assert_eq!(shown(&view, &data, size(80, 24))[0], "Keys");
    assert_eq!(view.press(Key::Escape, &data, size(80, 24)), Then::Paint);
    assert_ne!(shown(&view, &data, size(80, 24))[0], "Keys");
    view.press(Key::Letter('?'), &data, size(80, 24));
    assert_eq!(view.press(Key::Letter('q'), &data, size(80, 24)), Then::End);
}

#[test]
fn of_the_past_as_much_is_kept_as_is_wide() {
    let mut history = History::default();
    (0..KEPT as u64 + 5).for_each(|value| history.remember(Some(value), None));
    assert_eq!((history.cpu.len(), history.cpu[0], history.memory.len()), (KEPT, Some(5), KEPT));
}

#[test]
fn another_container_of_the_same_name_has_another_history() {
    let (mut data, one) = (Data::new(), example("a"));
    let kept = |data: &Data| data.history_of(&example("a")).unwrap().cpu.len();
    data.update(vec![one.clone()]);
    data.update(vec![one.clone()]);
    assert_eq!(kept(&data), 2);
    data.update(vec![Sample { pid: one.pid + 1, ..one }]);
    assert_eq!(kept(&data), 1);
}
