//! Sets of CPUs or memory nodes: lists such as "0-3,7" (cpuset(7), "List format") and the bit masks that
//! system calls take.

/// The largest number accepted, so that a mistyped digit does not allocate gigabytes; runc's limit.
const LARGEST: u32 = 64 * 1024;

/// A bit mask in words: with words of W bits, number N is bit N modulo W of word N / W.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask(Vec<usize>);

impl Mask {
    /// Parses a comma-separated list of numbers and ranges; spaces around them and empty elements are
    /// ignored. Returns `None` for an empty text.
    ///
    /// # Errors
    /// The reason, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let mut mask = Self::default();
        for element in text.split(',').map(str::trim).filter(|element| !element.is_empty()) {
            let (first, last) = element.split_once('-').unwrap_or((element, element));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("invalid range {element:?}: start is greater than end"));
            }
            mask.add(first, last);
        }
        match (mask.0.is_empty(), text.is_empty()) {
            (true, true) => Ok(None),
            (true, false) => Err(format!("empty list {text:?}")),
            (false, _) => Ok(Some(mask)),
        }
    }

    /// Sets whole words at once: a list may repeat a long range many times.
    fn add(&mut self, first: usize, last: usize) {
        let bits = usize::BITS as usize;
        let (begin, end) = (first / bits, last / bits);
        if self.0.len() <= end {
            self.0.resize(end + 1, 0);
        }
        for (index, word) in self.0.iter_mut().enumerate().take(end + 1).skip(begin) {
            let from = if index == begin { usize::MAX << (first % bits) } else { usize::MAX };
            let to = if index == end { usize::MAX >> (bits - 1 - last % bits) } else { usize::MAX };
            *word |= from & to;
        }
    }

    /// The number of elements.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    pub fn into_words(self) -> Vec<usize> {
        self.0
    }
}

fn number(text: &str) -> Result<usize, String> {
    // `parse` alone would accept a plus sign.
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return Err(format!("invalid number {text:?}"));
    }
    let value = text.parse::<u32>().ok().filter(|value| *value <= LARGEST);
    value.and_then(|value| usize::try_from(value).ok()).ok_or_else(|| format!("{text} exceeds {LARGEST}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<usize> {
        Mask::parse(text).unwrap().unwrap().into_words()
    }

    #[test]
    fn numbers_and_ranges_become_bits() {
        assert_eq!(words("0-3,7"), [0x8f]);
        assert_eq!(words(" 1 ,, 0-0,"), [3]);
        assert_eq!(Mask::parse(""), Ok(None));
    }

    #[test]
    fn there_is_room_for_more_numbers_than_a_fixed_set_has() {
        let mask = Mask::parse("5,1024-2047").unwrap().unwrap();
        assert_eq!(mask.count(), 1025);
        let words = mask.into_words();
        assert_eq!((words.len(), words[0], words[16], words[31]), (32, 1 << 5, usize::MAX, usize::MAX));
    }

    #[test]
    fn what_is_no_list_is_refused_with_the_reason() {
        let refused = |text| Mask::parse(text).unwrap_err();
        assert_eq!(refused("0-9876543210"), "9876543210 exceeds 65536");
        assert_eq!(refused("3-1"), "invalid range \"3-1\": start is greater than end");
        assert_eq!(refused("1-2-3"), "invalid number \"2-3\"");
        assert_eq!(refused("+1"), "invalid number \"+1\"");
        assert_eq!(refused("1,-"), "invalid number \"\"");
        assert_eq!(refused(" , "), "empty list \" , \"");
    }
}
