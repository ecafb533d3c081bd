//! Events and their pictures. The pictures stand beside the events, as bytes.

use operations_contract::{ImageData, JobEvent, JobId};
use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, StoreError, int, rows, uint};
use crate::job::StoredImage;

/// Events with their ids, in their order.
pub(crate) type Events = Vec<(u64, JobEvent)>;

/// What stands in an event's JSON where its picture was: the shortest thing that reads as one.
fn placeholder() -> ImageData {
    ImageData::new([0])
}

/// The pictures that an event carries, in a fixed order.
fn pictures(event: &mut JobEvent) -> Vec<&mut ImageData> {
    match event {
        JobEvent::Preview { image, .. } => vec![image],
        JobEvent::Complete { images, .. } => images.iter_mut().map(|image| &mut image.image).collect(),
        _ => Vec::new(),
    }
}

/// Writes events down. Gives the bytes that they take.
pub(super) fn insert(
    connection: &Connection,
    job: i64,
    events: &[(u64, JobEvent)],
) -> Result<u64, StoreError> {
    let mut event_row = connection.prepare_cached("INSERT INTO events (job, id, body) VALUES (?, ?, ?)")?;
    let mut image_row =
        connection.prepare_cached("INSERT INTO images (job, event, n, bytes) VALUES (?, ?, ?, ?)")?;
    let mut bytes = 0;
    for (id, event) in events {
        let mut plain = event.clone();
        for (n, picture) in (0u64..).zip(pictures(&mut plain)) {
            let picture = std::mem::replace(picture, placeholder());
            image_row.execute(params![job, int(*id), int(n), picture.bytes()])?;
            bytes += picture.len() as u64;
        }
        let body = serde_json::to_string(&plain)?;
        bytes += body.len() as u64;
        event_row.execute(params![job, int(*id), body])?;
    }
    Ok(bytes)
}

/// Bytes of the pictures that they carry.
pub(crate) fn weight(events: &[(u64, JobEvent)]) -> u64 {
    let pictures = |event: &JobEvent| match event {
        JobEvent::Preview { image, .. } => image.len(),
        JobEvent::Complete { images, .. } => images.iter().map(|image| image.image.len()).sum(),
        _ => 0,
    };
    events.iter().map(|(_, event)| pictures(event) as u64).sum()
}

/// All events of a job that can be read, in their order.
pub(super) fn of_job(connection: &Connection, job: i64) -> Result<Events, StoreError> {
    let mut images =
        connection.prepare_cached("SELECT bytes FROM images WHERE job = ? AND event = ? AND n = ?")?;
    let mut bodies = connection.prepare_cached("SELECT id, body FROM events WHERE job = ? ORDER BY id")?;
    let mut bodies = bodies.query([job])?;
    let mut events = Vec::new();
    while let Some(row) = bodies.next()? {
        let id: i64 = row.get(0)?;
        let read = |body| serde_json::from_str(body).map_err(|error| error.to_string());
        let mut event = match rows::text(row.get_ref(1)?).and_then(read) {
            Ok(event) => event,
            Err(reason) => {
                tracing::warn!(job, event = id, %reason, "an event cannot be read and is left out");
                continue;
            }
        };
        let mut whole = true;
        for (n, picture) in (0u64..).zip(pictures(&mut event)) {
            match images.query_row(params![job, id, int(n)], |row| row.get::<_, Vec<u8>>(0)).optional()? {
                Some(bytes) => *picture = ImageData::new(bytes),
                None => whole = false,
            }
        }
        match whole {
            true => events.push((uint(id), event)),
            false => tracing::warn!(job, event = id, "an event has lost a picture and is left out"),
        }
    }
    Ok(events)
}

impl Store {
    /// One image of a completed job, counted from 0.
    pub(crate) fn image(&self, id: &JobId, index: usize) -> Result<Option<StoredImage>, StoreError> {
        let connection = &self.open_now().connection;
        // Previews come before: the last event with pictures has the results.
        let mut statement = connection.prepare_cached(
            "SELECT images.bytes, jobs.view FROM jobs JOIN images ON images.job = jobs.seq
             WHERE jobs.id = ? AND jobs.state = 'completed' AND images.n = ? ORDER BY images.event DESC LIMIT 1",
        )?;
        let row = statement
            .query_row(params![id.as_str(), int(index as u64)], |row| {
                Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, String>(1)?))
            })
            .optional()?;
        let Some((bytes, view)) = row else { return Ok(None) };
        let view: operations_contract::JobView = serde_json::from_str(&view)?;
        Ok(view.images.get(index).map(|image| StoredImage { bytes: bytes.into(), format: image.format }))
    }
}
