//! Memory for packed weights and scratch: aligned to cache lines, reused per thread.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::thread::LocalKey;

/// Cache line, vector and tile row.
const LINE: usize = 64;
/// The size of a huge page; large buffers are aligned to it and ask for huge pages.
const HUGE: usize = 2 << 20;

/// A fixed-size slice of plain numbers aligned to 64 bytes, zero at first.
pub(crate) struct Buffer<T> {
    data: NonNull<T>,
    len: usize,
}

// SAFETY: a Buffer owns its memory as a Box<[T]> would.
unsafe impl<T: Send> Send for Buffer<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Buffer<T> {}

impl<T: crate::element::Lanes> Buffer<T> {
    pub(crate) fn zeroed(len: usize) -> Self {
        if len == 0 {
            return Self { data: NonNull::dangling(), len };
        }
        let layout = Self::layout(len);
        // SAFETY: the layout's size is not zero; zero bytes are a valid f32 and bf16.
        let data = unsafe { alloc_zeroed(layout) };
        let Some(data) = NonNull::new(data.cast::<T>()) else { handle_alloc_error(layout) };
        Self { data, len }.with_huge_pages()
    }
}

impl<T> Buffer<T> {
    fn layout(len: usize) -> Layout {
        let bytes = len.saturating_mul(size_of::<T>());
        let align = if bytes >= HUGE { HUGE } else { LINE };
        // A size beyond isize::MAX cannot be allocated: say so as the allocator would.
        Layout::from_size_align(bytes, align).unwrap_or_else(|_| handle_alloc_error(Layout::new::<T>()))
    }

    fn with_huge_pages(self) -> Self {
        #[cfg(target_os = "linux")]
        if self.len * size_of::<T>() >= HUGE {
            // SAFETY: the range is this buffer's own; the advice changes no content and may be refused.
            unsafe {
                libc::madvise(self.data.as_ptr().cast(), self.len * size_of::<T>(), libc::MADV_HUGEPAGE)
            };
        }
        self
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated in `zeroed` with the same layout.
            unsafe { dealloc(self.data.as_ptr().cast(), Self::layout(self.len)) };
        }
    }
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

fn with<R>(slot: &'static LocalKey<Slot>, len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = slot
        .take()
        .filter(|buffer| buffer.len() >= len)
        .unwrap_or_else(|| Buffer::zeroed(len.next_multiple_of(LINE / size_of::<f32>())));
    let result = work(&mut buffer);
    slot.set(Some(buffer));
    result
}

/// Cuts `len` values, rounded up to whole cache lines, off the front of `scratch`.
pub(crate) fn carve<'a>(scratch: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (head, tail) = std::mem::take(scratch).split_at_mut(line_up(len));
    *scratch = tail;
    head
}

/// `len` f32 values rounded up to whole cache lines.
pub(crate) fn line_up(len: usize) -> usize {
    len.next_multiple_of(LINE / size_of::<f32>())
}
