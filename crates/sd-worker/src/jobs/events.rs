//! Server-sent events, read line by line.

use std::io::{self, BufRead};

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its id, where it has one.
    pub(crate) id: Option<u64>,
    /// Its lines of data.
    pub(crate) data: String,
}

/// Reads up to the end of the next event; `None` at the end of the stream, where what was begun is dropped.
pub(crate) fn next(reader: &mut impl BufRead) -> io::Result<Option<Event>> {
    let mut event = Event { id: None, data: String::new() };
    let mut has_data = false;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let text = line.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            match has_data {
                true => return Ok(Some(event)),
                false => continue,
            }
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if has_data {
                    event.data.push('\n');
                }
                has_data = true;
                event.data.push_str(value);
            }
            "id" => event.id = value.parse().ok(),
            // Comments keep the connection alive.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(Option<u64>, String)> {
        let mut reader = text.as_bytes();
        let mut events = Vec::new();
        while let Some(Event { id, data }) = next(&mut reader).unwrap() {
            events.push((id, data));
        }
        events
    }

    #[test]
    fn events_are_what_stands_between_empty_lines() {
        let text = ": keep-alive\n\nid: 7\ndata: {\"a\":1}\n\ndata:[DONE]\r\n\r\nid: 9\ndata: cut";
        assert_eq!(read(text), [(Some(7), "{\"a\":1}".to_owned()), (None, "[DONE]".to_owned())]);
        assert_eq!(read("data: a\ndata: b\nretry: 5\n\n"), [(None, "a\nb".to_owned())]);
        assert_eq!(read("id: x\ndata\n\n"), [(None, String::new())]);
    }
}
