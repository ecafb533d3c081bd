//! Memory for packed weights and scratch: aligned to cache lines, reused per thread.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::thread::LocalKey;

use crate::element::{Element, Lanes};

/// Cache line, vector and tile row.
const LINE: usize = 64;
/// The size of a huge page; larger buffers come straight from the system and ask for such pages.
const HUGE: usize = 2 << 20;

/// A fixed-size slice of plain numbers aligned to 64 bytes, zero at first.
///
/// Large ones lie in huge pages where the system has them: gigabytes of weights and activations would otherwise
/// miss the processor's address cache at every other row.
pub struct Buffer<T> {
    data: NonNull<T>,
    len: usize,
}

// SAFETY: a Buffer owns its memory as a Box<[T]> would.
unsafe impl<T: Send> Send for Buffer<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Buffer<T> {}

impl<T: Element> Buffer<T> {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        Self::new(len)
    }
}

#[allow(private_bounds, reason = "what `Element` is made of")]
impl<T: Lanes> Buffer<T> {
    pub(crate) fn new(len: usize) -> Self {
        if len == 0 {
            return Self { data: NonNull::dangling(), len };
        }
        let layout = Self::layout(len);
        let data = match pages::apply(layout.size()) {
            true => pages::map(layout.size()),
            // SAFETY: the layout's size is not zero; zero bytes are a valid f32 and bf16.
            false => unsafe { alloc_zeroed(layout) },
        };
        let Some(data) = NonNull::new(data.cast::<T>()) else { handle_alloc_error(layout) };
        Self { data, len }
    }
}

impl<T> Buffer<T> {
    fn layout(len: usize) -> Layout {
        // A size beyond isize::MAX cannot be allocated: say so as the allocator would.
        Layout::from_size_align(len.saturating_mul(size_of::<T>()), LINE)
            .unwrap_or_else(|_| handle_alloc_error(Layout::new::<T>()))
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        let layout = Self::layout(self.len);
        match pages::apply(layout.size()) {
            // SAFETY: mapped in `new` with the same size.
            true => unsafe { pages::unmap(self.data.as_ptr().cast(), layout.size()) },
            // SAFETY: allocated in `new` with the same layout.
            false => unsafe { dealloc(self.data.as_ptr().cast(), layout) },
        }
    }
}

/// Memory straight from the system, in huge pages as far as whole ones fit.
#[cfg(target_os = "linux")]
mod pages {
    use super::HUGE;

    /// Whether a buffer of `bytes` comes from here. A sanitizer only sees into what comes from the allocator.
    pub(super) fn apply(bytes: usize) -> bool {
        bytes >= HUGE && !cfg!(sd_sanitize)
    }

    /// Zeroed memory aligned to a huge page, or null.
    ///
    /// The advice is given before the first touch, so the system fills whole huge pages at once; the rest behind
    /// the last whole one stays in small pages, because hundreds of weights would waste a megabyte each.
    pub(super) fn map(bytes: usize) -> *mut u8 {
        let Some(room) = bytes.checked_add(HUGE) else { return std::ptr::null_mut() };
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new private mapping at an address of the system's choice touches nothing that exists.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), room, access, kind, -1, 0) };
        if base == libc::MAP_FAILED {
            return std::ptr::null_mut();
        }
        let start = base.cast::<u8>();
        let head = start.align_offset(HUGE);
        let data = start.wrapping_add(head);
        let (tail, end) = (data.wrapping_add(whole_pages(bytes)), start.wrapping_add(whole_pages(room)));
        // SAFETY: head and tail lie within the mapping and outside of `bytes` from `data`; the advice is about
        // this mapping alone, changes no content and may be refused.
        unsafe {
            if head > 0 {
                libc::munmap(base, head);
            }
            if tail < end {
                libc::munmap(tail.cast(), end.addr() - tail.addr());
            }
            libc::madvise(data.cast(), bytes / HUGE * HUGE, libc::MADV_HUGEPAGE);
        }
        data
    }

    /// # Safety
    /// `data` is what `map(bytes)` returned, and nothing refers to it any more.
    pub(super) unsafe fn unmap(data: *mut u8, bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { libc::munmap(data.cast(), whole_pages(bytes)) };
    }

    /// `bytes` rounded up to pages (of 4 KiB, or 64 where the system has larger ones).
    fn whole_pages(bytes: usize) -> usize {
        bytes.next_multiple_of(if cfg!(target_arch = "x86_64") { 4 << 10 } else { 64 << 10 })
    }
}

#[cfg(not(target_os = "linux"))]
mod pages {
    pub(super) fn apply(_bytes: usize) -> bool {
        false
    }
    pub(super) fn map(_bytes: usize) -> *mut u8 {
        std::ptr::null_mut()
    }
    /// # Safety
    /// Never called: nothing is mapped.
    pub(super) unsafe fn unmap(_data: *mut u8, _bytes: usize) {}
}

impl<T> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `data` is valid for `len` initialised elements, or dangling with `len` 0.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

impl<T> std::fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} x {} bytes)", self.len, size_of::<T>())
    }
}

thread_local! {
    static SCRATCH: Slot = const { Cell::new(None) };
    static SHARED: Slot = const { Cell::new(None) };
}

type Slot = Cell<Option<Buffer<f32>>>;

/// Lends this thread's scratch memory: at least `len` f32 values, aligned to 64 bytes, of unspecified content.
///
/// A nested call gets memory of its own. The memory stays with the thread for the next call.
pub(crate) fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    with(&SCRATCH, len, work)
}

/// As [`with_scratch`], for what the tasks of a call share: beside the scratch that tasks on this thread take.
pub(crate) fn with_shared_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    with(&SHARED, len, work)
}

#[cfg(not(sd_sanitize))]
fn with<R>(slot: &'static LocalKey<Slot>, len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = slot
        .take()
        .filter(|buffer| buffer.len() >= len)
        .unwrap_or_else(|| Buffer::new(len.next_multiple_of(LINE / size_of::<f32>())));
    let result = work(&mut buffer);
    slot.set(Some(buffer));
    result
}

/// Cuts `len` values, rounded up to whole cache lines, off the front of `scratch`.
#[cfg(not(sd_sanitize))]
pub(crate) fn carve<'a>(scratch: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (head, tail) = std::mem::take(scratch).split_at_mut(line_up(len));
    *scratch = tail;
    head
}

#[cfg(sd_sanitize)]
pub(crate) use guarded::carve_guarded as carve;
#[cfg(sd_sanitize)]
use guarded::with_guarded as with;

/// Scratch as `cargo xtask sanitize` wants it: new for each call, full of NaN so that what is read before it is written
/// shows in the results, and with poison behind each piece.
#[cfg(sd_sanitize)]
mod guarded {
    use super::*;

    /// f32 values of poison behind a piece, and how many pieces there may be.
    const GUARD: usize = 64;
    const PIECES: usize = 16;
    /// NaN as f32, and as two bf16.
    const UNWRITTEN: f32 = f32::from_bits(0x7fc0_7fc0);

    pub(crate) fn with_guarded<R>(
        _: &'static LocalKey<Slot>,
        len: usize,
        work: impl FnOnce(&mut [f32]) -> R,
    ) -> R {
        let mut buffer = Buffer::new(line_up(len) + GUARD * PIECES);
        buffer[..len].fill(UNWRITTEN);
        poison(&mut buffer[len..], true);
        work(&mut buffer)
    }

    pub(crate) fn carve_guarded<'a>(scratch: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
        let (head, tail) = std::mem::take(scratch).split_at_mut(line_up(len));
        let (guard, tail) = tail.split_at_mut(GUARD.min(tail.len()));
        poison(tail, false);
        poison(guard, true);
        tail.fill(UNWRITTEN);
        *scratch = tail;
        head
    }

    /// Forbids or allows access to `values`, which nothing refers to.
    #[cfg(sd_sanitize = "address")]
    fn poison(values: &mut [f32], forbid: bool) {
        unsafe extern "C" {
            fn __asan_poison_memory_region(start: *const std::ffi::c_void, bytes: usize);
            fn __asan_unpoison_memory_region(start: *const std::ffi::c_void, bytes: usize);
        }
        let (start, bytes) = (values.as_ptr().cast(), size_of_val(values));
        // SAFETY: the sanitizer's runtime only notes it down.
        unsafe {
            if forbid {
                __asan_poison_memory_region(start, bytes);
            } else {
                __asan_unpoison_memory_region(start, bytes);
            }
        }
    }

    #[cfg(not(sd_sanitize = "address"))]
    fn poison(_: &mut [f32], _: bool) {}
}

/// `len` f32 values rounded up to whole cache lines.
pub(crate) fn line_up(len: usize) -> usize {
    len.next_multiple_of(LINE / size_of::<f32>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Around the size from which buffers are mapped: zero, aligned, writable to the last element.
    #[test]
    fn buffers_are_zero_aligned_and_whole() {
        for len in [0, 1, 17, HUGE / 4 - 1, HUGE / 4, HUGE / 4 + 1, 3 * HUGE / 4 + 1000] {
            let mut buffer = Buffer::<f32>::zeroed(len);
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|value| *value == 0.0));
            if len > 0 {
                assert_eq!(buffer.as_ptr().addr() % LINE, 0);
            }
            buffer.fill(1.5);
            assert_eq!(buffer.iter().filter(|value| **value == 1.5).count(), len);
        }
    }
}
