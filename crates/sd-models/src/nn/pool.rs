//! Memory of activations that is used again.
//!
//! A generation asks for the same shapes at every step. Fresh memory for each would have to be zeroed and mapped by
//! the system again and again, which took a tenth of a step.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use half::bf16;
use sd_kernels::{Buffer, Element};

/// The most memory that is kept for the next layers, in bytes.
const KEEP: usize = 512 << 20;

/// While one of these lives, memory of activations that are dropped is kept for the next ones.
///
/// Hold one around work that repeats, such as the steps of a generation. When the last one goes, so does the memory.
/// At most 512 MiB wait at any time; the smallest pieces are given back first. Without one, every piece is given
/// back at once.
#[derive(Debug)]
pub struct Workspace(());

impl Workspace {
    /// Starts to keep memory.
    pub fn new() -> Self {
        with_pool(|pool| pool.holders += 1);
        Self(())
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let unused = with_pool(|pool| {
            pool.holders -= 1;
            if pool.holders > 0 {
                return None;
            }
            Some((std::mem::take(&mut pool.f32), std::mem::take(&mut pool.bf16)))
        });
        // Given back here, when others can use the pool again.
        drop(unused);
    }
}

/// Numbers of one layer's output, of unspecified content at first; the memory goes back to the pool.
#[derive(Debug)]
pub(super) struct Pooled<T: Poolable> {
    buffer: Option<Buffer<T>>,
    len: usize,
}

impl<T: Poolable> Pooled<T> {
    /// Room for `len` values.
    pub(super) fn new(len: usize) -> Self {
        let kept = with_pool(|pool| T::shelf(pool).take(len));
        Self { buffer: Some(kept.unwrap_or_else(|| Buffer::zeroed(len))), len }
    }
}

impl<T: Poolable> Deref for Pooled<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[..self.len])
    }
}

impl<T: Poolable> DerefMut for Pooled<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.buffer.as_mut().map_or(&mut [], |buffer| &mut buffer[..self.len])
    }
}

impl<T: Poolable> Drop for Pooled<T> {
    fn drop(&mut self) {
        let Some(buffer) = self.buffer.take() else { return };
        let given_back = with_pool(|pool| match pool.holders {
            0 => vec![buffer],
            _ => T::shelf(pool).put(buffer),
        });
        drop(given_back);
    }
}

/// The element types of activations.
pub(super) trait Poolable: Element {
    fn shelf(pool: &mut Pool) -> &mut Shelf<Self>;
}

impl Poolable for f32 {
    fn shelf(pool: &mut Pool) -> &mut Shelf<Self> {
        &mut pool.f32
    }
}

impl Poolable for bf16 {
    fn shelf(pool: &mut Pool) -> &mut Shelf<Self> {
        &mut pool.bf16
    }
}

pub(super) struct Pool {
    holders: usize,
    f32: Shelf<f32>,
    bf16: Shelf<bf16>,
}

/// Unused buffers by their length.
pub(super) struct Shelf<T> {
    buffers: BTreeMap<usize, Vec<Buffer<T>>>,
    bytes: usize,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<T> Shelf<T> {
    const EMPTY: Self = Self { buffers: BTreeMap::new(), bytes: 0 };

    /// The smallest buffer of `len` to five quarters of it.
    fn take(&mut self, len: usize) -> Option<Buffer<T>> {
        let (&found, buffers) = self.buffers.range_mut(len..=len + len / 4).next()?;
        let buffer = buffers.pop();
        if buffers.is_empty() {
            self.buffers.remove(&found);
        }
        self.bytes -= buffer.as_ref().map_or(0, |buffer| size_of_val(&buffer[..]));
        buffer
    }

    /// Keeps `buffer` and returns what has become too much.
    fn put(&mut self, buffer: Buffer<T>) -> Vec<Buffer<T>> {
        self.bytes += size_of_val(&buffer[..]);
        self.buffers.entry(buffer.len()).or_default().push(buffer);
        let mut excess = Vec::new();
        while self.bytes > KEEP
            && let Some(mut smallest) = self.buffers.first_entry()
        {
            if let Some(buffer) = smallest.get_mut().pop() {
                self.bytes -= size_of_val(&buffer[..]);
                excess.push(buffer);
            }
            if smallest.get().is_empty() {
                smallest.remove();
            }
        }
        excess
    }
}

fn with_pool<R>(work: impl FnOnce(&mut Pool) -> R) -> R {
    static POOL: Mutex<Pool> = Mutex::new(Pool { holders: 0, f32: Shelf::EMPTY, bf16: Shelf::EMPTY });
    work(&mut POOL.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shelf_lends_what_fits_and_keeps_within_bounds() {
        let mut shelf = Shelf::<f32>::default();
        for len in [100, 80, 10_000] {
            assert!(shelf.put(Buffer::zeroed(len)).is_empty());
        }
        assert_eq!(shelf.bytes, 4 * 10_180);
        assert!(shelf.take(10).is_none(), "a far larger buffer was lent");
        assert_eq!(shelf.take(79).map(|buffer| buffer.len()), Some(80));
        assert_eq!(shelf.take(79).map(|buffer| buffer.len()), None);
        assert_eq!(shelf.bytes, 4 * 10_100);

        // The smallest goes first.
        let excess = shelf.put(Buffer::zeroed(KEEP / 4 - 5_000));
        assert_eq!(excess.iter().map(|buffer| buffer.len()).collect::<Vec<_>>(), [100, 10_000]);
        assert!(shelf.bytes <= KEEP);
    }
}
