//! Resource limits; config.md § POSIX process, getrlimit(2).

use anyhow::Result;
use oci_spec::runtime::{PosixRlimit, PosixRlimitType};

use crate::error::Pointer;

/// `RLIMIT_*`, soft, hard.
pub type Rlimit = (u32, u64, u64);

/// Plans the array at `at` (`/process/rlimits`).
pub fn plan(rlimits: &[PosixRlimit], at: &Pointer) -> Result<Vec<Rlimit>> {
    let mut planned: Vec<Rlimit> = Vec::with_capacity(rlimits.len());
    for (index, rlimit) in rlimits.iter().enumerate() {
        let at = at.index(index);
        let resource = number(rlimit.typ());
        if planned.iter().any(|(seen, _, _)| *seen == resource) {
            return Err(at
                .field("type")
                .error(format_args!("duplicate rlimit {:?}", rlimit.typ().to_string())));
        }
        if rlimit.soft() > rlimit.hard() {
            let message = format!("soft limit {} exceeds hard limit {}", rlimit.soft(), rlimit.hard());
            return Err(at.field("soft").error(message));
        }
        planned.push((resource, rlimit.soft(), rlimit.hard()));
    }
    Ok(planned)
}

fn number(kind: PosixRlimitType) -> u32 {
    use PosixRlimitType as T;
    // The C libraries define these constants with different types.
    #[allow(clippy::unnecessary_cast, reason = "u32 with glibc, int with musl")]
    #[allow(clippy::cast_sign_loss, reason = "constants from 0 to 15")]
    {
        (match kind {
            T::RlimitCpu => libc::RLIMIT_CPU,
            T::RlimitFsize => libc::RLIMIT_FSIZE,
            T::RlimitData => libc::RLIMIT_DATA,
            T::RlimitStack => libc::RLIMIT_STACK,
            T::RlimitCore => libc::RLIMIT_CORE,
            T::RlimitRss => libc::RLIMIT_RSS,
            T::RlimitNproc => libc::RLIMIT_NPROC,
            T::RlimitNofile => libc::RLIMIT_NOFILE,
            T::RlimitMemlock => libc::RLIMIT_MEMLOCK,
            T::RlimitAs => libc::RLIMIT_AS,
            T::RlimitLocks => libc::RLIMIT_LOCKS,
            T::RlimitSigpending => libc::RLIMIT_SIGPENDING,
            T::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
            T::RlimitNice => libc::RLIMIT_NICE,
            T::RlimitRtprio => libc::RLIMIT_RTPRIO,
            T::RlimitRttime => libc::RLIMIT_RTTIME,
        }) as u32
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::line;

    fn planned(value: serde_json::Value) -> Result<Vec<Rlimit>> {
        let rlimits: Vec<PosixRlimit> = serde_json::from_value(value).unwrap();
        plan(&rlimits, &Pointer::root().field("process").field("rlimits"))
    }

    #[test]
    fn a_limit_set_twice_is_refused() {
        let error = planned(json!([
            {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}, {"type": "RLIMIT_NOFILE", "soft": 2, "hard": 2}
        ]));
        assert!(line(&error.unwrap_err()).starts_with("config.json: /process/rlimits/1/type: "));
    }

    #[test]
    fn a_soft_limit_cannot_exceed_the_hard_one() {
        let error = planned(json!([{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}])).unwrap_err();
        assert_eq!(line(&error), "config.json: /process/rlimits/0/soft: soft limit 2 exceeds hard limit 1");
    }
}
