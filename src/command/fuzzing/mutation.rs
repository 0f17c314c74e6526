//! Mutates inputs: JSON by its structure, so that most results still pass the decoder; everything else
//! bytewise.

use serde_json::{Map, Number, Value, json};

use super::{Dice, Form};

/// Longer inputs only take longer.
const LONGEST: usize = 1 << 17;

/// Returns `input` with a few changes, some of which take a part from `other`.
pub fn mutated(input: &[u8], other: &[u8], form: Form, dice: &mut impl Dice) -> Vec<u8> {
    let mut changed = input.to_vec();
    for _ in 0..=dice.roll(4) {
        let as_json = form == Form::Json && dice.roll(8) != 0;
        changed = match as_json.then(|| json_changed(&changed, other, dice)).flatten() {
            Some(changed) => changed,
            None => bytes_changed(changed, other, form, dice),
        };
        changed.truncate(LONGEST);
    }
    changed
}

/// `None` if it is not JSON.
fn json_changed(input: &[u8], other: &[u8], dice: &mut impl Dice) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(input).ok()?;
    let other: Value = serde_json::from_slice(other).unwrap_or_default();
    let mut chosen = dice.index(count(&value));
    let lent = {
        let mut place = dice.index(count(&other));
        nth(&mut other.clone(), &mut place).map(|lent| lent.clone()).unwrap_or_default()
    };
    change(nth(&mut value, &mut chosen)?, lent, dice);
    let mut text = value.to_string();
    // Numbers that do not fit into a `Value`.
    for number in UNHELD {
        text = text.replace(&format!("\"{PLACEHOLDER}{number}\""), number);
    }
    if dice.roll(10) == 0 {
        text = with_a_member_twice(&text, dice);
    }
    Some(text.into_bytes())
}

const PLACEHOLDER: &str = "number ";
const UNHELD: [&str; 6] = ["1e400", "-0", "1.0", "1e-400", "99999999999999999999999", "-9223372036854775809"];

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

/// The value at index `place`, in the order of the text.
fn nth<'a>(value: &'a mut Value, place: &mut usize) -> Option<&'a mut Value> {
    let Some(rest) = place.checked_sub(1) else { return Some(value) };
    *place = rest;
    match value {
        Value::Array(list) => list.iter_mut().find_map(|value| nth(value, place)),
        Value::Object(members) => members.values_mut().find_map(|value| nth(value, place)),
        _ => None,
    }
}

fn change(value: &mut Value, lent: Value, dice: &mut impl Dice) {
    match dice.roll(8) {
        0 => *value = scalar(dice),
        1 => *value = lent,
        2 => {
            for _ in 0..=dice.pick(&[0, 0, 1, 40, 200]) {
                *value = if dice.roll(4) == 0 { json!({ "a": value.take() }) } else { json!([value.take()]) };
            }
        }
        _ => change_kindly(value, lent, dice),
    }
}

/// Changes the value but keeps its type.
fn change_kindly(value: &mut Value, lent: Value, dice: &mut impl Dice) {
    match value {
        Value::Object(members) if !members.is_empty() => change_members(members, lent, dice),
        Value::Array(list) if !list.is_empty() => {
            let place = dice.index(list.len());
            match dice.roll(5) {
                0 => drop(list.remove(place)),
                1 => list.insert(place, list[place].clone()),
                2 => list.insert(place, lent),
                3 => list.extend(vec![list[place].clone(); dice.pick(&[2, 70, 300])]),
                _ => {
                    let last = list.len() - 1;
                    list.swap(place, last);
                }
            }
        }
        Value::String(text) => *text = text_changed(text, dice),
        Value::Number(number) => *value = number_changed(number, dice),
        Value::Bool(truth) => *truth = !*truth,
        other => *other = lent,
    }
}

fn change_members(members: &mut Map<String, Value>, lent: Value, dice: &mut impl Dice) {
    let name = members.keys().nth(dice.index(members.len())).cloned().unwrap_or_default();
    match (dice.roll(4), lent) {
        (0, _) => drop(members.remove(&name)),
        (1, Value::Object(others)) => members.extend(others),
        (2, lent) => drop(members.insert(text_changed(&name, dice), lent)),
        _ => {
            let value = members.remove(&name).unwrap_or_default();
            members.insert(text_changed(&name, dice), value);
        }
    }
}

fn scalar(dice: &mut impl Dice) -> Value {
    match dice.roll(7) {
        0 => Value::Null,
        1 => json!(dice.roll(2) == 0),
        2 => json!(dice.pick(&NUMBERS)),
        3 => json!(-i64::from(dice.pick(&[1, 2, 17, 4096, i32::MAX]))),
        4 => json!(format!("{PLACEHOLDER}{}", dice.pick(&UNHELD))),
        5 => dice.pick(&[json!({}), json!([]), json!(""), json!(i64::MIN), json!(0.5)].each_ref()).clone(),
        _ => json!(dice.pick(&WORDS)),
    }
}

const NUMBERS: [u64; 14] = [
    0,
    1,
    2,
    64,
    255,
    256,
    4096,
    65_536,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

fn number_changed(number: &Number, dice: &mut impl Dice) -> Value {
    let near = dice.pick(&[1, -1, 2, -2]);
    match (dice.roll(3), number.as_i64()) {
        (0, Some(number)) => json!(number.wrapping_add(near)),
        (1, Some(number)) => json!(number.wrapping_neg()),
        _ => json!(dice.pick(&NUMBERS)),
    }
}

/// Parts of paths, lists and numbers, and words that do not belong there.
const WORDS: [&str; 40] = [
    "/",
    "..",
    "../..",
    "//",
    ".",
    "\0",
    "\n",
    "\u{1b}[2J",
    "\u{9b}",
    "\u{202e}",
    "é",
    "=",
    ":",
    ",",
    "-",
    "max",
    "0-3",
    "0x",
    "-1",
    "18446744073709551615",
    "%",
    "~1",
    "\\",
    "'",
    "\"",
    "(",
    ")",
    "[",
    "]",
    "<",
    "@as []",
    "uint64 5",
    "--",
    " ",
    "\t",
    "avg10=nan",
    "some ",
    "SIG",
    "1e9",
    "RTMAX-",
];

fn text_changed(text: &str, dice: &mut impl Dice) -> String {
    let places: Vec<usize> = text.char_indices().map(|(place, _)| place).chain([text.len()]).collect();
    let (a, b) = (dice.pick(&places), dice.pick(&places));
    let (first, last) = (a.min(b), a.max(b));
    match dice.roll(6) {
        0 => format!("{}{}", &text[..first], &text[last..]),
        1 => text[first..last].to_owned(),
        2 => text.repeat(dice.pick(&[2, 3, 70, 300])),
        _ => format!("{}{}{}", &text[..first], dice.pick(&WORDS), &text[first..]),
    }
}

/// Repeats the first member of an object, as some programs do.
fn with_a_member_twice(text: &str, dice: &mut impl Dice) -> String {
    let objects: Vec<usize> = text.match_indices("{\"").map(|(place, _)| place).collect();
    if objects.is_empty() {
        return text.to_owned();
    }
    let place = dice.pick(&objects) + 1;
    let name = text[place + 1..].find('"').map_or("", |end| &text[place..place + end + 2]);
    format!("{}{name}:null,{}", &text[..place], &text[place..])
}

fn bytes_changed(mut input: Vec<u8>, other: &[u8], form: Form, dice: &mut impl Dice) -> Vec<u8> {
    let place = dice.index(input.len() + 1);
    let length = dice.pick(&[2, 9, 65]);
    let end = (place + dice.index(length)).min(input.len());
    match dice.roll(8) {
        0 if place < input.len() => input[place] ^= 1 << dice.roll(8),
        1 if place < input.len() => input[place] = dice.pick(&[0, 1, 0x7f, 0x80, 0xff, b'\n', b' ']),
        2 => drop(input.drain(place..end)),
        3 => {
            let part = input[place..end].to_vec();
            let times = dice.pick(&[1, 1, 2, 60]);
            input.splice(place..place, part.repeat(times));
        }
        4 if !other.is_empty() => {
            let from = dice.index(other.len());
            let length = dice.pick(&[9, 65, 600]);
            let to = (from + dice.index(length)).min(other.len());
            input.splice(place..end, other[from..to].iter().copied());
        }
        5 if form != Form::Bytes => drop(input.splice(place..end, dice.pick(&WORDS).bytes())),
        6 if form == Form::Text => {
            let mut lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
            let (one, another) = (dice.index(lines.len()), dice.index(lines.len()));
            if dice.roll(2) == 0 {
                lines.swap(one, another)
            } else {
                lines.insert(one, lines[another])
            }
            input = lines.join(&b'\n');
        }
        _ => {
            let count = 1 + dice.roll(8);
            let new: Vec<u8> = (0..count).map(|_| dice.roll(256).to_le_bytes()[0]).collect();
            input.splice(place..place, new);
        }
    }
    input
}
