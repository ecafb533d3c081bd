//! The texts of JPEG and WebP files, which have no text chunks: two fields of EXIF.
//!
//! The `parameters` text stands in `UserComment` as UTF-16 (big-endian, whatever the rest is), where A1111 writes it. The
//! request as JSON stands in `ImageDescription`, with everything beyond ASCII escaped as the field asks for: one field
//! of a chunk that is there anyway, which every reader of EXIF shows as text. XMP would be a second chunk in another
//! language, and a maker note is what programs drop first when they write a file again.

use std::io::Cursor;

use exif::experimental::Writer;
use exif::{Field, In, Reader, Tag, Value};

/// How a user comment begins that is UTF-16.
const UNICODE: &[u8] = b"UNICODE\0";
/// How one begins that is ASCII.
const ASCII: &[u8] = b"ASCII\0\0\0";
/// How one begins whose code nobody told.
const UNDEFINED: &[u8] = &[0; 8];
/// What stands before EXIF in JPEG, and where some programs leave it in other files too.
const HEADER: &[u8] = b"Exif\0\0";

/// The chunk with these texts; empty if there are none.
pub(crate) fn write(parameters: Option<&str>, json: Option<&str>) -> Result<Vec<u8>, exif::Error> {
    let field = |tag, value| Field { tag, ifd_num: In::PRIMARY, value };
    let mut fields = Vec::new();
    if let Some(json) = json {
        fields.push(field(Tag::ImageDescription, Value::Ascii(vec![escaped(json).into_bytes()])));
    }
    if let Some(text) = parameters {
        let units = text.encode_utf16().flat_map(u16::to_be_bytes);
        let comment = UNICODE.iter().copied().chain(units).collect();
        fields.push(field(Tag::UserComment, Value::Undefined(comment, 0)));
    }
    if fields.is_empty() {
        return Ok(Vec::new());
    }
    let mut writer = Writer::new();
    for field in &fields {
        writer.push_field(field);
    }
    let mut bytes = Cursor::new(Vec::new());
    writer.write(&mut bytes, false)?;
    Ok(bytes.into_inner())
}

/// JSON in ASCII: what lies beyond stands in strings, where it can be escaped.
fn escaped(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        match c.is_ascii() {
            true => ascii.push(c),
            false => {
                let units = c
                    .encode_utf16(&mut [0; 2])
                    .iter()
                    .map(|unit| format!("\\u{unit:04x}"))
                    .collect::<String>();
                ascii.push_str(&units);
            }
        }
    }
    ascii
}

/// The user comment and the description in a chunk, where they can be read.
pub(crate) fn read(chunk: Vec<u8>) -> (Option<String>, Option<String>) {
    let chunk = match chunk.strip_prefix(HEADER) {
        Some(rest) => rest.to_vec(),
        None => chunk,
    };
    // A broken chunk tells what was read before the break: piexif, with which A1111 writes, leaves the end of a list out.
    let read = Reader::new().continue_on_error(true).read_raw(chunk);
    let Ok(exif) = read.or_else(|error| error.distill_partial_result(|_| {})) else { return (None, None) };
    let value = |tag| exif.get_field(tag, In::PRIMARY).map(|field| &field.value);
    let comment = match value(Tag::UserComment) {
        Some(Value::Undefined(bytes, _)) => comment(bytes),
        _ => None,
    };
    let description = match value(Tag::ImageDescription) {
        Some(Value::Ascii(lines)) => Some(lines.iter().map(|line| String::from_utf8_lossy(line)).collect()),
        _ => None,
    };
    (comment, description)
}

fn comment(bytes: &[u8]) -> Option<String> {
    let (code, text) = bytes.split_at_checked(UNICODE.len())?;
    match code {
        UNICODE => Some(utf16(text)),
        ASCII | UNDEFINED => Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned()),
        _ => None,
    }
}

/// Big-endian, as A1111 writes it, unless the bytes say otherwise: other programs take the order of the file.
fn utf16(bytes: &[u8]) -> String {
    let pairs = bytes.as_chunks::<2>().0;
    let zeros = |at: usize| pairs.iter().filter(|pair| pair[at] == 0).count();
    let (little, pairs) = match pairs {
        [[0xff, 0xfe], rest @ ..] => (true, rest),
        [[0xfe, 0xff], rest @ ..] => (false, rest),
        // The names of the settings are ASCII: one byte of each of their letters is zero.
        _ => (zeros(1) > zeros(0), pairs),
    };
    let units =
        pairs.iter().map(|pair| if little { u16::from_le_bytes(*pair) } else { u16::from_be_bytes(*pair) });
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_whatever_their_letters() {
        for (parameters, json) in [("Steps: 3", "{\"a\":1}"), ("東京 🐎\nSteps: 3", "{\"a\":\"東京 🐎 é\"}")]
        {
            let (comment, description) = read(write(Some(parameters), Some(json)).unwrap());
            assert_eq!(comment.as_deref(), Some(parameters));
            let description = description.unwrap();
            assert!(description.is_ascii());
            let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            assert_eq!(value(&description), value(json));
        }
        assert!(write(None, None).unwrap().is_empty());
        assert_eq!(read(write(Some("Steps: 3"), None).unwrap()), (Some("Steps: 3".to_owned()), None));
    }

    /// What `piexif.dump` of piexif 1.1.3 makes of `UserComment.dump("ab", "unicode")`; A1111 writes with it.
    #[test]
    fn the_comment_is_read_where_a1111_writes_it() {
        let mut chunk = b"MM\0\x2a\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x1a\0\0\0\0".to_vec();
        chunk.extend(b"\0\x01\x92\x86\0\x07\0\0\0\x0c\0\0\0\x28UNICODE\0\0a\0b");
        assert_eq!(read(chunk.clone()), (Some("ab".to_owned()), None));
        assert_eq!(read([HEADER, &chunk].concat()).0.as_deref(), Some("ab"), "with the header of JPEG");
    }

    #[test]
    fn comments_of_other_programs_are_read_too() {
        assert_eq!(comment(b"ASCII\0\0\0Steps: 3\0"), Some("Steps: 3".to_owned()));
        assert_eq!(comment(b"\0\0\0\0\0\0\0\0Steps"), Some("Steps".to_owned()));
        assert_eq!(comment(b"UNICODE\0S\0t\0"), Some("St".to_owned()), "the other byte order");
        assert_eq!(comment(b"UNICODE\0\xff\xfe\x71\x67"), Some("東".to_owned()), "a byte order mark");
        assert_eq!(comment(b"JIS\0\0\0\0\0x"), None);
        assert_eq!(comment(b"short"), None);
        assert_eq!(read(b"MM\0\x2a\0\0\0\xff".to_vec()), (None, None));
    }
}
