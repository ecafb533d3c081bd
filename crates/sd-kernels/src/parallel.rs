//! Tasks on the caller's threads.

use rayon::prelude::*;

/// Runs `task(0..count)` on rayon's current pool, or here if there is one thread or one task.
pub(crate) fn for_each(count: usize, task: impl Fn(usize) + Send + Sync) {
    if count <= 1 || rayon::current_num_threads() == 1 {
        (0..count).for_each(task);
    } else {
        (0..count).into_par_iter().with_max_len(1).for_each(task);
    }
}

/// A pointer that tasks share; each writes its own part.
pub(crate) struct Shared<T>(pub(crate) *mut T);

#[allow(unsafe_code)]
// SAFETY: whoever writes through the pointer sees to it that no two tasks write the same place.
unsafe impl<T: Send> Sync for Shared<T> {}
#[allow(unsafe_code)]
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    /// The pointer, `offset` elements on.
    pub(crate) fn at(&self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}
