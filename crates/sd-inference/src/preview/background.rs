//! Decoding beside the steps without slowing them down.

use std::time::{Duration, Instant};

use rayon::ThreadPoolBuilder;
use thread_priority::{ThreadPriority, set_current_thread_priority};

use crate::machine::{Threads, available_threads};

/// The part of one core that previews may take where the steps use all cores. A step is to be later by two percent at most: its
/// threads wait for each other, so that what one of them loses all lose, however many they are.
const SHARE: f64 = 0.015;
/// Shorter rests are put off until they add up.
const SHORTEST_REST: Duration = Duration::from_millis(1);

/// A thread that decodes previews beside the steps, and how much it may do.
///
/// What it takes away from the steps is bounded twice. The thread has the lowest weight that the system gives: on Linux, the
/// scheduler leaves it 15 parts in 1039 of a core that a thread of the steps wants too (`nice` 19 beside 0). And it
/// [rests](Self::rest): in the mean it uses no more than 1.5 percent of one core, beside the whole cores that the steps'
/// threads leave free, and never more than one core.
///
/// ```no_run
/// # use std::sync::mpsc::Receiver;
/// # use sd_inference::{Background, PendingPreview};
/// # fn wanted() -> bool { true }
/// # fn show(picture: image::RgbImage) {}
/// fn decode(previews: Receiver<PendingPreview>, threads: usize) -> sd_inference::Result<()> {
///     let mut background = Background::enter(threads);
///     while let Ok(preview) = previews.recv() {
///         // Those that a newer one has overtaken are left out.
///         let newest = previews.try_iter().last().unwrap_or(preview);
///         background.begin();
///         let mut go_on = || {
///             background.rest();
///             wanted()
///         };
///         if let Some(picture) = newest.picture_while(&mut go_on)? {
///             show(picture);
///         }
///     }
///     Ok(())
/// }
/// # let (to, previews) = std::sync::mpsc::channel();
/// # std::thread::spawn(move || decode(previews, 2));
/// # drop(to);
/// ```
#[derive(Debug)]
pub struct Background {
    /// The cores that it may take, in the mean.
    share: f64,
    /// When it began, and the processor time that the thread had used by then.
    begun: (Instant, Duration),
    /// How long it had to rest then.
    owed: Duration,
    /// How long it has to rest after the break that it is in.
    paused: Option<Duration>,
}

impl Background {
    /// Makes the calling thread one that decodes in the background of steps that compute on `threads` threads. It cannot
    /// be made an ordinary one again.
    ///
    /// It gets the lowest weight, and becomes a rayon pool of its own, so that what it computes does not go to the pool of
    /// the steps. A thread of another pool stays there.
    pub fn enter(threads: usize) -> Self {
        // Where the system refuses, the rests still bound what it takes.
        let _ = set_current_thread_priority(ThreadPriority::Min);
        // The only error is that the thread is in a pool already.
        let _ = ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
        let share = share(threads, available_threads());
        Self { share, begun: (Instant::now(), processor_time()), owed: Duration::ZERO, paused: None }
    }

    /// The cores that it takes at most, in the mean.
    pub fn share(&self) -> f64 {
        self.share
    }

    /// Counts from now on: a preview begins. What it still has to rest for the last one is not forgotten: nobody calls
    /// [`rest`](Self::rest) after the last convolution, which is the largest.
    pub fn begin(&mut self) {
        let now = Instant::now();
        self.owed = match self.paused.take() {
            Some(owed) => owed,
            None => self.owes(now),
        };
        self.begun = (now, processor_time());
    }

    /// The time from now to the next [`begin`](Self::begin) counts neither as work nor as rest: there are no steps beside which
    /// it could rest.
    pub fn pause(&mut self) {
        if self.paused.is_none() {
            self.paused = Some(self.owes(Instant::now()));
        }
    }

    /// The processor time that the thread has used since it began.
    pub fn used(&self) -> Duration {
        processor_time().saturating_sub(self.begun.1)
    }

    /// How long it must rest now to keep to its share.
    pub fn due(&self) -> Duration {
        let rest = self.owes(Instant::now());
        if rest < SHORTEST_REST { Duration::ZERO } else { rest }
    }

    fn owes(&self, now: Instant) -> Duration {
        (self.owed + self.used().div_f64(self.share))
            .saturating_sub(now.saturating_duration_since(self.begun.0))
    }

    /// Rests so long.
    pub fn rest(&self) {
        std::thread::sleep(self.due());
    }
}

/// The cores that work in the background of `threads` threads may take.
fn share(threads: usize, machine: Threads) -> f64 {
    let cores = machine.quota.unwrap_or(f64::INFINITY).min(machine.allowed as f64);
    let threads = threads as f64;
    let free = (cores - threads).floor().max(0.0);
    (free + SHARE).min(1.0)
}

/// The processor time that the calling thread has used.
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Where no system call tells, all time counts as used: it rests for longer than it must.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn processor_time() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_one_core_and_what_the_threads_leave() {
        let quota = |quota| Threads { count: 2, online: 16, allowed: 16, quota };
        let on = |allowed: usize| Threads { count: allowed, online: allowed, allowed, quota: None };
        for (threads, machine, expected) in [
            (2, on(2), SHARE),
            (16, on(16), SHARE),
            (1, on(1), SHARE),
            // A core is free.
            (1, on(2), 1.0),
            (15, on(16), 1.0),
            // More threads than cores share these.
            (8, on(2), SHARE),
            // A quota is not exceeded, though cores are free.
            (2, quota(Some(1.5)), SHARE),
            (2, quota(Some(2.5)), SHARE),
            (2, quota(Some(3.0)), 1.0),
        ] {
            let found = share(threads, machine);
            assert!((found - expected).abs() < 1e-9, "{threads} threads on {machine:?}: {found}");
        }
    }

    #[test]
    fn its_thread_computes_alone_at_the_lowest_weight_and_rests() {
        let thread = std::thread::spawn(|| {
            let mut background = Background::enter(2);
            assert_eq!(rayon::current_num_threads(), 1);
            #[cfg(target_os = "linux")]
            {
                // proc(5): the fields after the name in parentheses begin with the third; the nineteenth is the nice value.
                let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
                let nice = stat.rsplit(')').next().unwrap().split_whitespace().nth(19 - 3);
                assert_eq!(nice, Some("19"), "{stat}");
            }
            background.share = 0.5;
            background.begin();
            assert_eq!(background.due(), Duration::ZERO);
            let start = Instant::now();
            while background.used() < Duration::from_millis(50) {
                std::hint::black_box(0);
            }
            // The next one begins with what this one still owes; a break counts neither as work nor as rest.
            background.pause();
            let owed = background.paused.unwrap();
            std::thread::sleep(Duration::from_millis(20));
            background.begin();
            assert_eq!((background.owed, background.paused), (owed, None));
            background.begin();
            assert!(background.used() < Duration::from_millis(50), "its work is counted once");
            // However long the work took: at its end twice its processor time has passed, beside the break.
            background.rest();
            assert!(start.elapsed() >= Duration::from_millis(50 * 2 + 20 - 1), "{:?}", start.elapsed());
            assert_eq!(background.due(), Duration::ZERO);
        });
        thread.join().unwrap();
    }
}
