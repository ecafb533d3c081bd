//! Memory of activations that is used again.
//!
//! A generation asks for the same shapes at every step. Fresh memory for each would have to be zeroed and mapped by
//! the system again and again, which took a tenth of a step.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use half::bf16;
use sd_kernels::{Buffer, Element};

/// While one of these lives, memory of activations that are dropped is kept for the next ones.
///
/// Hold one around work that repeats, such as the steps of a generation. When the last one goes, so does the memory.
/// Kept and used memory together never exceed the most that was in use at once: what is kept beyond that is given
/// back, the smallest pieces first. Without a workspace, every piece is given back at once.
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
            pool.most = 0;
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
        let (kept, excess) = with_pool(|pool| pool.take::<T>(len));
        // Given back before new memory is asked for.
        drop(excess);
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
        let given_back = with_pool(|pool| {
            pool.used -= size_of_val(&buffer[..]);
            match pool.holders {
                0 => Some(buffer),
                _ => {
                    T::shelf(pool).put(buffer);
                    None
                }
            }
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
    /// Bytes lent.
    used: usize,
    /// The most that were ever lent at once.
    most: usize,
    f32: Shelf<f32>,
    bf16: Shelf<bf16>,
}

/// Buffers that the pool can do without.
type Excess = (Vec<Buffer<f32>>, Vec<Buffer<bf16>>);

impl Pool {
    const EMPTY: Self = Self { holders: 0, used: 0, most: 0, f32: Shelf::EMPTY, bf16: Shelf::EMPTY };

    /// A kept buffer for `len` values, if there is one, and what has to go before a new one is made.
    fn take<T: Poolable>(&mut self, len: usize) -> (Option<Buffer<T>>, Excess) {
        let kept = T::shelf(self).take(len);
        self.used += kept.as_ref().map_or(len * size_of::<T>(), |buffer| size_of_val(&buffer[..]));
        self.most = self.most.max(self.used);
        let excess = self.used + self.f32.bytes + self.bf16.bytes;
        let excess = excess.saturating_sub(self.most);
        let f32 = self.f32.give_back(excess);
        let rest = excess.saturating_sub(f32.iter().map(|buffer| size_of_val(&buffer[..])).sum());
        (kept, (f32, self.bf16.give_back(rest)))
    }
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
        let found = *self.buffers.range(len..=len + len / 4).next()?.0;
        self.remove(found)
    }

    fn put(&mut self, buffer: Buffer<T>) {
        self.bytes += size_of_val(&buffer[..]);
        self.buffers.entry(buffer.len()).or_default().push(buffer);
    }

    /// Takes at least `bytes` off, the smallest buffers first.
    fn give_back(&mut self, bytes: usize) -> Vec<Buffer<T>> {
        let wanted = self.bytes.saturating_sub(bytes);
        let mut excess = Vec::new();
        while self.bytes > wanted
            && let Some(&smallest) = self.buffers.keys().next()
        {
            excess.extend(self.remove(smallest));
        }
        excess
    }

    fn remove(&mut self, len: usize) -> Option<Buffer<T>> {
        let buffers = self.buffers.get_mut(&len)?;
        let buffer = buffers.pop();
        if buffers.is_empty() {
            self.buffers.remove(&len);
        }
        self.bytes -= buffer.as_ref().map_or(0, |buffer| size_of_val(&buffer[..]));
        buffer
    }
}

fn with_pool<R>(work: impl FnOnce(&mut Pool) -> R) -> R {
    static POOL: Mutex<Pool> = Mutex::new(Pool::EMPTY);
    work(&mut POOL.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shelf_lends_what_fits() {
        let mut shelf = Shelf::<f32>::default();
        for len in [100, 80, 10_000] {
            shelf.put(Buffer::zeroed(len));
        }
        assert_eq!(shelf.bytes, 4 * 10_180);
        assert!(shelf.take(10).is_none(), "a far larger buffer was lent");
        assert_eq!(shelf.take(79).map(|buffer| buffer.len()), Some(80));
        assert_eq!(shelf.take(79).map(|buffer| buffer.len()), None);
        assert_eq!(shelf.bytes, 4 * 10_100);
    }

    /// Kept memory makes room for new memory beyond the most that was in use, the smallest pieces first.
    #[test]
    fn a_pool_holds_no_more_than_was_in_use_at_once() {
        let mut pool = Pool::EMPTY;
        let lend = |pool: &mut Pool, len: usize| {
            let (kept, excess) = pool.take::<f32>(len);
            let lost: Vec<usize> = excess.0.iter().map(|buffer| buffer.len()).collect();
            (kept.unwrap_or_else(|| Buffer::zeroed(len)), lost)
        };
        let (small, _) = lend(&mut pool, 100);
        let (large, lost) = lend(&mut pool, 1000);
        assert_eq!((pool.most, lost), (4400, vec![]));
        for buffer in [small, large] {
            pool.used -= size_of_val(&buffer[..]);
            pool.f32.put(buffer);
        }
        // 500 more would be 1600 in all: both go, and with them more than was needed.
        let (_other, lost) = lend(&mut pool, 500);
        assert_eq!(lost, [100, 1000]);
        assert_eq!((pool.used, pool.f32.bytes), (2000, 0));
    }
}
