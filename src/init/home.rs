//! Looks up a home directory in the container's /etc/passwd; passwd(5).

use std::ffi::CStr;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// The longest line considered; longer lines are skipped.
const LINE: usize = 1024;

/// How many blocks of [`LINE`] bytes are read, 1 MiB in total: the image's file may be endless.
const MOST: u32 = 1024;

/// `HOME=…` in a fixed buffer.
pub struct Home {
    variable: [u8; LINE],
}

impl Default for Home {
    fn default() -> Self {
        Self { variable: [0; LINE] }
    }
}

impl Home {
    /// Looks for `uid` in /etc/passwd. Without an entry, the home directory is `/`, as with runc.
    #[inline(never)]
    pub fn find(&mut self, uid: u32) -> Result<(), Errno> {
        self.set(b"/");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        // A missing or unreadable file counts as one without an entry.
        let Ok(file) = rustix::fs::open(c"/etc/passwd", flags, Mode::empty()) else { return Ok(()) };
        let is_file = rustix::fs::fstat(&file)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        if !is_file {
            return Ok(());
        }
        let mut chunks = MOST;
        let mut line = [0; LINE];
        let mut length = 0_usize;
        let mut buffer = [0; LINE];
        loop {
            let count = rustix::io::read(&file, &mut buffer).unwrap_or(0);
            let chunk = buffer.get(..count).unwrap_or_default();
            for byte in chunk.iter().chain(if count == 0 { Some(&b'\n') } else { None }) {
                if *byte != b'\n' {
                    if let Some(place) = line.get_mut(length) {
                        *place = *byte;
                    }
                    length = length.saturating_add(1);
                    continue;
                }
                if let Some(home) = line.get(..length).and_then(|line| home_of(line, uid)) {
                    self.set(home);
                    return Ok(());
                }
                length = 0;
            }
            chunks = chunks.saturating_sub(1);
            if count == 0 || chunks == 0 {
                return Ok(());
            }
        }
    }

    /// `HOME=…`, if [`Home::find`] has been called.
    pub fn variable(&self) -> Option<&CStr> {
        CStr::from_bytes_until_nul(&self.variable).ok().filter(|variable| !variable.is_empty())
    }

    fn set(&mut self, home: &[u8]) {
        let text = b"HOME=".iter().chain(home).chain(b"\0");
        for (to, from) in self.variable.iter_mut().zip(text) {
            *to = *from;
        }
    }
}

pub fn home_of(line: &[u8], uid: u32) -> Option<&[u8]> {
    let mut fields = line.split(|&byte| byte == b':');
    let number = fields.nth(2)?;
    let home = fields.nth(2)?;
    let number: u32 = std::str::from_utf8(number).ok()?.parse().ok()?;
    (number == uid && !home.is_empty() && !home.contains(&0)).then_some(home)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixth_field_of_the_users_line_is_the_home_directory() {
        assert_eq!(home_of(b"me:x:1000:1000:Me:/home/me:/bin/sh", 1000), Some(&b"/home/me"[..]));
        assert_eq!(home_of(b"me:x:1000:1000:Me:/home/me:/bin/sh", 100), None);
        assert_eq!(home_of(b"me:x:1000:1000:Me::/bin/sh", 1000), None);
        assert_eq!(home_of(b"# nothing", 0), None);
    }
}
