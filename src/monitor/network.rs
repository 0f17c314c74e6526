//! Bytes received and sent by the network interfaces of a process: `/proc/PID/net/dev`; proc_pid_net(5).

use crate::cgroup::Transfers;

/// The sums over all interfaces except `lo` in the network namespace of process `pid`; `None` if the process
/// is gone.
pub fn transfers(pid: i32) -> Option<Transfers> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    Some(sums(&text))
}

/// Parses the file. Each line is a name, a colon and sixteen numbers, of which the first is received bytes
/// and the ninth sent bytes. The two header lines have no colon.
pub fn sums(text: &str) -> Transfers {
    let mut sums = Transfers::default();
    for (name, numbers) in text.lines().filter_map(|line| line.rsplit_once(':')) {
        let mut numbers = numbers.split_ascii_whitespace().map(|number| number.parse().unwrap_or(0));
        if name.trim() != "lo" {
            sums.read = sums.read.saturating_add(numbers.next().unwrap_or(0));
            sums.written = sums.written.saturating_add(numbers.nth(7).unwrap_or(0));
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_summed_over_all_interfaces_but_lo() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
                    lo:     999       9    0    0    0     0          0         0      999       9    0    0    0     0       0          0\n  \
                    eth0:    1000       9    0    0    0     0          0         0       20       9    0    0    0     0       0          0\n\
                    a:b:2 3 0 0 0 0 0 0 4 0 0 0 0 0 0 0\n";
        assert_eq!(sums(text), Transfers { read: 1002, written: 24 });
        assert_eq!(sums(""), Transfers::default());
    }
}
