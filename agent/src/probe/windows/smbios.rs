//! The firmware's table as Windows gives it → the names that Linux has for the same fields. Pure.
//!
//! Offsets are those of DMTF's DSP0134 (System Management BIOS), from memory of it. Serial numbers are not read.

use std::collections::BTreeMap;

/// Windows' header: method, two versions, revision, and the length of what follows.
const HEADER: usize = 8;
/// Kind of structure, offset of the number of its text, and Linux' name for it.
const TEXTS: [(u8, usize, &str); 8] = [
    (0, 0x05, "bios_version"),
    (1, 0x04, "sys_vendor"),
    (1, 0x05, "product_name"),
    (1, 0x06, "product_version"),
    (1, 0x1a, "product_family"),
    (2, 0x04, "board_vendor"),
    (2, 0x05, "board_name"),
    (3, 0x04, "chassis_vendor"),
];
/// The kind of structure that says what the machine stands in, and where; its highest bit is a lock.
const CHASSIS: (u8, usize) = (3, 0x05);

/// The fields, by Linux' names; the first structure of a kind counts. What breaks off is left out.
pub fn read(table: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let mut rest = table.get(HEADER..).unwrap_or_default();
    while let Some((Structure { kind, formatted, texts }, after)) = structure(rest) {
        for (_, offset, name) in TEXTS.iter().filter(|(of, ..)| *of == kind) {
            let text = formatted.get(*offset).and_then(|number| texts.get(usize::from(*number).checked_sub(1)?));
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                fields.entry((*name).to_owned()).or_insert_with(|| text.clone());
            }
        }
        if let Some(code) = formatted.get(CHASSIS.1).filter(|_| kind == CHASSIS.0) {
            fields.entry("chassis_type".to_owned()).or_insert_with(|| (code & 0x7f).to_string());
        }
        rest = after;
    }
    fields
}

/// One structure of the table.
struct Structure<'a> {
    kind: u8,
    formatted: &'a [u8],
    texts: Vec<String>,
}

/// The first structure, and what follows it.
fn structure(table: &[u8]) -> Option<(Structure<'_>, &[u8])> {
    let (kind, length) = (*table.first()?, usize::from(*table.get(1)?));
    let formatted = table.get(..length).filter(|_| length >= 4)?;
    let texts = &table[length..];
    // Texts end with two zeros, also where there are none.
    let end = texts.windows(2).position(|pair| pair == [0, 0])?;
    let list = texts[..end].split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).trim().to_owned());
    Some((Structure { kind, formatted, texts: list.collect() }, &texts[end + 2..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Header, then the structures: kind, formatted part after its head, texts.
    fn table(structures: &[(u8, &[u8], &[&str])]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        for (kind, formatted, texts) in structures {
            bytes.extend([*kind, u8::try_from(formatted.len() + 4).expect("short"), 0, 0]);
            bytes.extend(*formatted);
            texts.iter().for_each(|text| bytes.extend([text.as_bytes(), &[0]].concat()));
            bytes.extend(if texts.is_empty() { &[0, 0][..] } else { &[0] });
        }
        bytes
    }

    #[test]
    fn a_laptop_names_itself() {
        let whole = table(&[
            (0, &[1, 2], &["LENOVO", "N3XET50W"]),
            (1, &[1, 2, 3], &["LENOVO", "21CB", "ThinkPad X1 Extreme"]),
            (127, &[], &[]),
            (3, &[1, 0x8a], &["LENOVO"]),
            (3, &[1, 3], &["a docking station"]),
        ]);
        let fields = read(&whole);
        assert_eq!(fields["sys_vendor"], "LENOVO");
        assert_eq!(fields["product_name"], "21CB");
        assert_eq!(fields["product_version"], "ThinkPad X1 Extreme");
        assert_eq!(fields["bios_version"], "N3XET50W");
        assert_eq!((fields["chassis_type"].as_str(), fields["chassis_vendor"].as_str()), ("10", "LENOVO"));
        for length in 0..whole.len() {
            let _ = read(&whole[..length]);
        }
        assert_eq!(read(&[1; 40]), BTreeMap::new());
    }
}
