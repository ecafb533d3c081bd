//! Events as they go over the wire, shared between those who listen at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use bytes::Bytes;
use operations_contract::{JobEvent, JobId};

/// Hands out the bytes of events. A picture is megabytes in base64: two hundred listeners of one job, some of whom do not
/// read, share one copy, which goes when the last of them has sent it. Cloning shares the frames.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frames(Arc<Mutex<ByEvent>>);

type ByEvent = HashMap<(JobId, u64), Weak<Frame>>;

/// One event's bytes, made by the first who needs them.
#[derive(Debug, Default)]
struct Frame(OnceLock<Vec<u8>>);

/// What `Bytes` keeps alive.
struct Shared(Arc<Frame>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.0.get().map_or(&[], Vec::as_slice)
    }
}

impl Frames {
    /// The event as a server-sent event.
    pub(crate) fn of(&self, job: &JobId, id: u64, event: &JobEvent) -> Bytes {
        match event {
            JobEvent::Preview { .. } | JobEvent::Complete { .. } => {}
            // Small: a copy each is less trouble.
            _ => return Bytes::from(wire(id, event)),
        }
        let frame = self.frame(job, id);
        frame.0.get_or_init(|| wire(id, event));
        Bytes::from_owner(Shared(frame))
    }

    fn frame(&self, job: &JobId, id: u64) -> Arc<Frame> {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = frames.get(&(job.clone(), id)).and_then(Weak::upgrade) {
            return frame;
        }
        frames.retain(|_, frame| frame.strong_count() > 0);
        let frame = Arc::new(Frame::default());
        frames.insert((job.clone(), id), Arc::downgrade(&frame));
        frame
    }
}

fn wire(id: u64, event: &JobEvent) -> Vec<u8> {
    // Events are plain data: they always serialize. JSON has no line breaks outside of strings, where they are escaped.
    let json = serde_json::to_string(event).unwrap_or_default();
    format!("id: {id}\ndata: {json}\n\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use operations_contract::{ImageData, ImageFormat};

    use super::*;

    fn preview(step: u32) -> JobEvent {
        JobEvent::Preview { step, image: ImageData::new(*b"picture"), format: ImageFormat::Jpeg }
    }

    #[test]
    fn those_who_listen_at_once_share_the_bytes_and_nothing_stays() {
        let (frames, job) = (Frames::default(), JobId::new("job-1"));
        let (first, second) = (frames.of(&job, 1, &preview(1)), frames.of(&job, 1, &preview(1)));
        assert_eq!(first.as_ptr(), second.as_ptr());
        assert!(first.starts_with(b"id: 1\ndata: {\"type\":\"preview\",\"step\":1,"), "{first:?}");
        assert_ne!(frames.of(&job, 2, &preview(2)), first);
        assert_ne!(frames.of(&JobId::new("job-2"), 1, &preview(3)), first);
        drop((first, second));
        let _last = frames.of(&job, 3, &preview(3));
        assert_eq!(frames.0.lock().unwrap().len(), 1);
    }
}
