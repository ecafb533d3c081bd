//! Whose turn it is among the jobs that wait.
//!
//! Jobs of one caller and one priority stand in a lane, the oldest first. The lane of the highest class goes first, and
//! within a class the lane of the caller who has had the least of the engine's time. Three things keep that fair:
//!
//! * A lane rises one class for each [`Policy::rise_after`] in which none of its jobs was begun, up to the highest. A
//!   lane that was not served for four times as long goes before all classes, the one that waits longest first: whatever
//!   else arrives, nothing waits for ever.
//! * A caller who comes back gets no credit for the time in which nothing of theirs waited.
//! * A job that fits to what is loaded or runs may overtake others of its class, but only for
//!   [`Policy::patience`]: whoever was overtaken that long ago goes next.
//!
//! Nothing in here knows threads or clocks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use operations_contract::Priority;

/// How turns are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How long jobs of a caller wait unserved until they count as of the next higher priority.
    pub rise_after: Duration,
    /// How long a job may be overtaken by others because these fit to the loaded model or to what runs.
    pub patience: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { rise_after: Duration::from_secs(120), patience: Duration::from_secs(30) }
    }
}

/// Who sent a job; all that came without a name are one.
pub(crate) type Caller = Option<Arc<str>>;

/// What a job's turn depends on.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    pub(crate) caller: Caller,
    pub(crate) priority: Priority,
    pub(crate) accepted: Instant,
}

/// The jobs that wait.
#[derive(Debug)]
pub(crate) struct Waiting<J> {
    policy: Policy,
    lanes: Vec<Lane<J>>,
    accounts: BTreeMap<Caller, Account>,
}

#[derive(Debug)]
struct Lane<J> {
    caller: Caller,
    priority: Priority,
    /// When a job of it was begun last.
    served: Option<Instant>,
    /// Never empty between calls.
    jobs: VecDeque<Entry<J>>,
}

#[derive(Debug)]
struct Entry<J> {
    accepted: Instant,
    /// When another was first preferred although this one's turn had come.
    overtaken: Option<Instant>,
    job: J,
}

/// What a caller has had.
#[derive(Debug, Default, Clone, Copy)]
struct Account {
    spent: Duration,
    running: usize,
}

/// The class above all priorities.
const OVERDUE: u32 = 3;
/// How many times [`Policy::rise_after`] makes a lane overdue.
const OVERDUE_AFTER: u32 = 4;

/// What sorts lanes: class, jobs that run, time spent, age.
type Rank = (std::cmp::Reverse<u32>, usize, Duration, Instant);

impl<J> Lane<J> {
    /// Since when nobody of it was served, while its first job waited.
    fn unserved_since(&self) -> Option<Instant> {
        let accepted = self.jobs.front()?.accepted;
        Some(self.served.map_or(accepted, |served| served.max(accepted)))
    }

    fn class(&self, policy: &Policy, now: Instant) -> u32 {
        let own = match self.priority {
            Priority::Low => 0,
            Priority::Normal => 1,
            _ => 2,
        };
        let unserved = self.unserved_since().map_or(Duration::ZERO, |since| now.duration_since(since));
        let rises = unserved.as_nanos() / policy.rise_after.as_nanos().max(1);
        match u32::try_from(rises).unwrap_or(u32::MAX) {
            rises if rises >= OVERDUE_AFTER => OVERDUE,
            rises => (own + rises).min(2),
        }
    }
}

impl<J> Waiting<J> {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { policy, lanes: Vec::new(), accounts: BTreeMap::new() }
    }

    pub(crate) fn push(&mut self, turn: Turn, job: J) {
        let Turn { caller, priority, accepted } = turn;
        self.welcome(&caller);
        let entry = Entry { accepted, overtaken: None, job };
        match self.lanes.iter_mut().find(|lane| lane.caller == caller && lane.priority == priority) {
            Some(lane) => {
                // Jobs that come back from a store may be older than those that are here.
                let behind = lane.jobs.partition_point(|other| other.accepted <= accepted);
                lane.jobs.insert(behind, entry);
            }
            None => self.lanes.push(Lane { caller, priority, served: None, jobs: [entry].into() }),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Takes out whose turn it is. `fits`: what is loaded, or joins what runs; others of the same class wait for it as long
    /// as the policy's patience lasts. `only_fitting`: while something runs, nothing else can begin.
    pub(crate) fn pop(&mut self, now: Instant, only_fitting: bool, fits: impl Fn(&J) -> bool) -> Option<J> {
        let (first, rank) = self.best(now, |_| true)?;
        let head = self.lanes.get(first)?.jobs.front()?;
        if fits(&head.job) {
            return self.take(first, 0, now);
        }
        let class = rank.0;
        let put_off = head.overtaken.map_or(Duration::ZERO, |since| now.duration_since(since));
        let out_of_patience = put_off >= self.policy.patience;
        let fitting = match class.0 == OVERDUE || out_of_patience {
            true => None,
            false => self.best(now, |lane| lane.jobs.iter().any(|entry| fits(&entry.job))),
        };
        match fitting.filter(|(_, rank)| rank.0 == class) {
            Some((lane, _)) => {
                let place = self.lanes.get(lane)?.jobs.iter().position(|entry| fits(&entry.job))?;
                for overtaken in [first, lane] {
                    let head = self.lanes.get_mut(overtaken)?.jobs.front_mut()?;
                    head.overtaken.get_or_insert(now);
                }
                self.take(lane, place, now)
            }
            None if only_fitting => None,
            None => self.take(first, 0, now),
        }
    }

    /// Counts the engine's time to whom it was spent on.
    pub(crate) fn charge(&mut self, caller: &Caller, time: Duration) {
        self.account(caller).spent += time;
    }

    /// A job that [`pop`](Self::pop) gave is over.
    pub(crate) fn leave(&mut self, caller: &Caller) {
        let account = self.account(caller);
        account.running = account.running.saturating_sub(1);
        self.forget_idle();
    }

    /// Whether one of them is such.
    pub(crate) fn any(&self, such: impl Fn(&J) -> bool) -> bool {
        self.lanes.iter().flat_map(|lane| &lane.jobs).any(|entry| such(&entry.job))
    }

    /// Keeps those that `stays` says.
    pub(crate) fn retain(&mut self, mut stays: impl FnMut(&J) -> bool) {
        for lane in &mut self.lanes {
            lane.jobs.retain(|entry| stays(&entry.job));
        }
        self.lanes.retain(|lane| !lane.jobs.is_empty());
    }

    /// Takes all out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = J> + use<J> {
        std::mem::take(&mut self.lanes).into_iter().flat_map(|lane| lane.jobs).map(|entry| entry.job)
    }

    /// The lane that goes first of those that `may`.
    fn best(&self, now: Instant, may: impl Fn(&Lane<J>) -> bool) -> Option<(usize, Rank)> {
        let ranked = self.lanes.iter().enumerate().filter(|(_, lane)| may(lane));
        ranked.filter_map(|(index, lane)| Some((index, self.rank(lane, now)?))).min_by_key(|(_, rank)| *rank)
    }

    fn rank(&self, lane: &Lane<J>, now: Instant) -> Option<Rank> {
        let class = lane.class(&self.policy, now);
        let account = self.accounts.get(&lane.caller).copied().unwrap_or_default();
        Some(match class {
            OVERDUE => (std::cmp::Reverse(class), 0, Duration::ZERO, lane.unserved_since()?),
            _ => (std::cmp::Reverse(class), account.running, account.spent, lane.jobs.front()?.accepted),
        })
    }

    fn take(&mut self, lane: usize, place: usize, now: Instant) -> Option<J> {
        let from = self.lanes.get_mut(lane)?;
        from.served = Some(now);
        let (caller, entry) = (from.caller.clone(), from.jobs.remove(place)?);
        if from.jobs.is_empty() {
            self.lanes.remove(lane);
        }
        self.account(&caller).running += 1;
        Some(entry.job)
    }

    fn account(&mut self, caller: &Caller) -> &mut Account {
        self.accounts.entry(caller.clone()).or_default()
    }

    /// Whoever comes new or back starts level with the least of those that are here.
    fn welcome(&mut self, caller: &Caller) {
        self.forget_idle();
        if self.is_here(caller) {
            return;
        }
        let least = self.least_spent().unwrap_or_default();
        let account = self.account(caller);
        account.spent = account.spent.max(least);
    }

    fn is_here(&self, caller: &Caller) -> bool {
        self.lanes.iter().any(|lane| lane.caller == *caller)
            || self.accounts.get(caller).is_some_and(|account| account.running > 0)
    }

    fn least_spent(&self) -> Option<Duration> {
        let here = self.accounts.iter().filter(|(caller, _)| self.is_here(caller));
        here.map(|(_, account)| account.spent).min()
    }

    /// Accounts that would change nothing: of those who are gone and have had no more than others. Nobody is told apart
    /// when all are gone.
    fn forget_idle(&mut self) {
        let least = self.least_spent().unwrap_or(Duration::MAX);
        let gone: Vec<Caller> = self
            .accounts
            .iter()
            .filter(|(caller, account)| account.spent <= least && !self.is_here(caller))
            .map(|(caller, _)| caller.clone())
            .collect();
        for caller in gone {
            self.accounts.remove(&caller);
        }
    }
}

#[cfg(test)]
#[path = "waiting/laws.rs"]
mod laws;
