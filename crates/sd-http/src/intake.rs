//! How many bytes of requests are held at once, and how many requests are worked on.
//!
//! One body and one picture are bounded by themselves. This bounds all of them together: a thousand connections with a
//! body each, or with a small file each that unpacks to a large picture, must not take the memory of the machine.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use operations_contract::ErrorCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::body::{self, BoxError};
use crate::config::ApiConfig;
use crate::error::ApiError;

/// In what unit room is counted, so that it fits the permits of a semaphore.
const UNIT: u64 = 1 << 10;

/// Room for bodies, and turns for those that are worked on.
#[derive(Debug)]
pub(crate) struct Intake {
    room: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    max_body_bytes: usize,
    timeout: Duration,
}

/// A body that was read, and the room that it takes for as long as this lives.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Intake {
    pub(crate) fn new(config: &ApiConfig) -> Self {
        let room = units(config.max_bodies_bytes.max(config.max_body_bytes) as u64);
        // Parsing and decoding take a core.
        let turns = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            room: Arc::new(Semaphore::new(room as usize)),
            turns: Arc::new(Semaphore::new(turns)),
            max_body_bytes: config.max_body_bytes,
            timeout: config.body_timeout,
        }
    }

    /// Reads a body within the limits. While others hold all the room it waits, as long as a body may take to arrive.
    pub(crate) async fn read<B>(&self, body: B) -> Result<Upload, ApiError>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let announced = body.size_hint().exact().unwrap_or(self.max_body_bytes as u64);
        // A body that announces more is refused below without being read.
        let units = units(announced.min(self.max_body_bytes as u64));
        let room = Arc::clone(&self.room).acquire_many_owned(units);
        let Ok(Ok(room)) = tokio::time::timeout(self.timeout, room).await else {
            return Err(ApiError::new(ErrorCode::Timeout, "too many bodies arrive at once: try again later"));
        };
        let bytes = body::read(body, self.max_body_bytes, self.timeout).await?;
        Ok(Upload { bytes, _room: room })
    }

    /// Works on a body where that holds nobody up: parsing and decoding megabytes of images takes a while.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        upload: Upload,
        work: impl FnOnce(Bytes) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let gone = || ApiError::new(ErrorCode::InferenceFailed, "the request could not be processed");
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| gone())?;
        let worked = tokio::task::spawn_blocking(move || {
            let Upload { bytes, _room } = upload;
            let done = work(bytes);
            drop(turn);
            done
        });
        worked.await.map_err(|error| {
            tracing::error!(%error, "a request panicked");
            gone()
        })?
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[tokio::test]
    async fn bodies_wait_for_room_and_not_for_ever() {
        let config = ApiConfig {
            max_body_bytes: 4 << 10,
            max_bodies_bytes: 8 << 10,
            body_timeout: Duration::from_millis(200),
            ..ApiConfig::default()
        };
        let intake = Intake::new(&config);
        let body = |bytes| Full::new(Bytes::from(vec![b' '; bytes]));
        let first = intake.read(body(4 << 10)).await.unwrap();
        let _second = intake.read(body(4 << 10)).await.unwrap();
        assert!(intake.read(body(1)).await.is_err(), "no room within the time");
        drop(first);
        let third = intake.read(body(3 << 10)).await.unwrap();
        assert_eq!(intake.work(third, |bytes| Ok(bytes.len())).await.unwrap(), 3 << 10);
        intake.read(body(4 << 10)).await.expect("the room of what was worked on is free again");
    }
    #[tokio::test]
    async fn no_more_are_worked_on_than_there_are_turns() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let intake = Intake::new(&ApiConfig::default());
        let turns = intake.turns.available_permits();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let one = async || {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            let upload = intake.read(Full::new(Bytes::new())).await.unwrap();
            let work = move |_| {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            };
            intake.work(upload, work).await.unwrap();
        };
        tokio::join!(one(), one(), one(), one(), one(), one(), one(), one());
        assert!((1..=turns).contains(&most.load(Ordering::SeqCst)));
    }
}
