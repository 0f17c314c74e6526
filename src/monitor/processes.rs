//! The processes of one container, for `top ID`: `/proc/PID/stat` and `/proc/PID/cmdline`; proc_pid_stat(5).

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::time::Instant;

use super::per_second;

/// How much of a command line is read, in bytes: more than a terminal is wide; it could be megabytes.
const LONGEST_COMMAND: u64 = 4096;

/// A sample of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    /// `R`, `S`, `D`, `Z` and so on.
    pub state: char,
    pub threads: u64,
    /// In bytes.
    pub resident: u64,
    /// The command line or, if empty, the name of the process. Untrusted: may contain anything.
    pub command: Vec<u8>,
    /// Since the previous sample, in hundredths of a percent of one processor.
    pub cpu: Option<u64>,
    /// In ticks since boot; tells apart two processes with the same pid.
    pub start: u64,
    /// CPU time in ticks.
    time: u64,
}

/// Samples processes repeatedly.
#[derive(Debug)]
pub struct Watch {
    ticks_per_second: u64,
    page: u64,
    before: HashMap<(i32, u64), (u64, Instant)>,
}

impl Watch {
    pub fn new() -> Self {
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        Self { ticks_per_second: rustix::param::clock_ticks_per_second(), page, before: HashMap::new() }
    }

    /// Samples those of `pids` that still exist, sorted by pid.
    pub fn look(&mut self, pids: &[i32]) -> Vec<Process> {
        let mut seen = HashMap::new();
        let mut processes = Vec::new();
        for pid in pids {
            let Some(mut process) = read(*pid, self.page) else { continue };
            let key = (process.pid, process.start);
            let now = Instant::now();
            process.cpu = self.before.get(&key).and_then(|(time, then)| {
                // There are few ticks in a second, so multiply before dividing.
                let elapsed = now.saturating_duration_since(*then);
                let hundredths = |ticks: u64| ticks.saturating_mul(10_000);
                per_second(hundredths(*time), hundredths(process.time), elapsed)?
                    .checked_div(self.ticks_per_second)
            });
            seen.insert(key, (process.time, now));
            processes.push(process);
        }
        self.before = seen;
        processes.sort_unstable_by_key(|process| process.pid);
        processes
    }
}

fn read(pid: i32, page: u64) -> Option<Process> {
    let process = parse(pid, &std::fs::read(format!("/proc/{pid}/stat")).ok()?, page)?;
    let mut words = Vec::new();
    // If it cannot be read, the name is used instead.
    if let Ok(file) = File::open(format!("/proc/{pid}/cmdline")) {
        let _ = file.take(LONGEST_COMMAND).read_to_end(&mut words);
    }
    let words = words.strip_suffix(b"\0").unwrap_or(&words);
    let words: Vec<u8> = words.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
    Some(if words.is_empty() { process } else { Process { command: words, ..process } })
}

/// Parses `/proc/PID/stat`. The name in parentheses may contain anything, so fields are counted from the last
/// parenthesis: the state is field 3.
pub fn parse(pid: i32, stat: &[u8], page: u64) -> Option<Process> {
    let (begin, end) =
        (stat.iter().position(|byte| *byte == b'(')?, stat.iter().rposition(|byte| *byte == b')')?);
    let name = stat.get(begin + 1..end)?;
    let fields = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok());
    Some(Process {
        pid,
        state: fields.first()?.chars().next()?,
        threads: number(20)?,
        resident: number(24)?.saturating_mul(page),
        command: [b"[", name, b"]"].concat(),
        cpu: None,
        start: number(22)?,
        time: number(14)?.saturating_add(number(15)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat =
            b"7 (a) Z (b)) S 1 7 7 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 3 0 12345 1000 5 18446744073709551615";
        let expected = Process {
            pid: 7,
            state: 'S',
            threads: 3,
            resident: 5 * 4096,
            command: b"[a) Z (b)]".into(),
            cpu: None,
            start: 12_345,
            time: 42,
        };
        assert_eq!(parse(7, stat, 4096), Some(expected));
        assert_eq!(parse(7, b"7 (a) Z", 4096), None);
        assert_eq!(parse(7, b"", 4096), None);
    }

    #[test]
    fn processor_time_is_told_from_the_second_look_on() {
        let mut watch = Watch::new();
        let own = i32::try_from(std::process::id()).unwrap();
        let first = watch.look(&[own, i32::MAX]);
        assert_eq!((first.len(), first[0].cpu), (1, None));
        assert!(first[0].resident > 0 && first[0].threads >= 1 && !first[0].command.is_empty());
        assert!(watch.look(&[own])[0].cpu.is_some());
        assert!(watch.look(&[]).is_empty());
    }
}
