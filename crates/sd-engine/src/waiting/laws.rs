//! Laws of turns, held by a simulated engine: no threads, no clock.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A job of the simulation; times in milliseconds.
#[derive(Debug, Clone)]
struct Job {
    id: usize,
    caller: u8,
    priority: Priority,
    arrives: u64,
    takes: u64,
    model: u8,
}

#[derive(Debug)]
struct Begun {
    job: Job,
    at: u64,
}

fn caller(number: u8) -> Caller {
    (number > 0).then(|| format!("caller-{number}").into())
}

/// One job after the other, each on its model, which stays loaded. Gives them in the order in which they began, and how
/// often a model was loaded.
fn simulate(policy: Policy, jobs: &[Job]) -> (Vec<Begun>, usize) {
    let begin = Instant::now();
    let at = |ms: u64| begin + Duration::from_millis(ms);
    let mut waiting = Waiting::new(policy);
    let mut coming: VecDeque<Job> = {
        let mut jobs = jobs.to_vec();
        jobs.sort_by_key(|job| job.arrives);
        jobs.into()
    };
    let (mut now, mut loaded, mut loads, mut begun) = (0, None, 0, Vec::new());
    loop {
        while let Some(job) = coming.pop_front_if(|job| job.arrives <= now) {
            let turn = Turn { caller: caller(job.caller), priority: job.priority, accepted: at(job.arrives) };
            waiting.push(turn, job);
        }
        let Some(job) = waiting.pop(at(now), false, |job: &Job| Some(job.model) == loaded) else {
            match coming.front() {
                Some(next) => now = next.arrives,
                None => return (begun, loads),
            }
            continue;
        };
        loads += usize::from(loaded != Some(job.model));
        loaded = Some(job.model);
        let from = caller(job.caller);
        waiting.charge(&from, Duration::from_millis(job.takes));
        begun.push(Begun { at: now, job: job.clone() });
        now += job.takes;
        waiting.leave(&from);
    }
}

const RISE: u64 = 2_000;
const PATIENCE: u64 = 1_000;
const LONGEST: u64 = 300;

fn policy() -> Policy {
    Policy { rise_after: Duration::from_millis(RISE), patience: Duration::from_millis(PATIENCE) }
}

fn jobs(callers: u8, models: u8) -> impl Strategy<Value = Vec<Job>> {
    let priority = prop_oneof![Just(Priority::Low), Just(Priority::Normal), Just(Priority::High)];
    let job = (0..callers, priority, 0..20_000u64, 1..=LONGEST, 0..models);
    prop::collection::vec(job, 1..200).prop_map(|jobs| {
        let job = |(id, (caller, priority, arrives, takes, model))| Job {
            id,
            caller,
            priority,
            arrives,
            takes,
            model,
        };
        jobs.into_iter().enumerate().map(job).collect()
    })
}

proptest! {
    #[test]
    fn every_job_runs_exactly_once(jobs in jobs(4, 3)) {
        let (begun, _) = simulate(policy(), &jobs);
        let mut ids: Vec<usize> = begun.iter().map(|begun| begun.job.id).collect();
        ids.sort_unstable();
        prop_assert_eq!(ids, (0..jobs.len()).collect::<Vec<_>>());
    }

    /// Whatever arrives, a lane is served within four rises and one round of those that are overdue as well.
    #[test]
    fn nobody_starves(jobs in jobs(4, 3)) {
        let (begun, _) = simulate(policy(), &jobs);
        let lanes = 4 * 3;
        let bound = RISE * u64::from(OVERDUE_AFTER) + (lanes + 1) * LONGEST;
        let mut served = BTreeMap::new();
        let mut order: BTreeMap<_, Vec<&Begun>> = BTreeMap::new();
        for begun in &begun {
            order.entry((begun.job.caller, begun.job.priority as u8)).or_default().push(begun);
        }
        for (lane, begun) in order {
            for (index, each) in begun.iter().enumerate() {
                // The oldest that waited when this one began.
                let oldest = begun[index..].iter().map(|other| other.job.arrives).min().unwrap_or(0);
                let since = served.insert(lane, each.at).map_or(oldest, |served: u64| served.max(oldest));
                prop_assert!(each.at - since <= bound, "{lane:?} waited {} ms", each.at - since);
            }
        }
    }

    /// Callers that always have jobs get the same time of the engine, give or take one job.
    #[test]
    fn shares_are_equal_while_all_wait(takes in prop::collection::vec((0..3u8, 1..=LONGEST), 30..200)) {
        let job = |(id, &(caller, takes)): (usize, &(u8, u64))| Job {
            id, caller, priority: Priority::Normal, arrives: 0, takes, model: 0,
        };
        let jobs: Vec<Job> = takes.iter().enumerate().map(job).collect();
        let (begun, _) = simulate(Policy { rise_after: Duration::from_secs(3600), ..policy() }, &jobs);
        let mut left: BTreeMap<u8, usize> = BTreeMap::new();
        for job in &jobs {
            *left.entry(job.caller).or_default() += 1;
        }
        let mut spent: BTreeMap<u8, u64> = left.keys().map(|caller| (*caller, 0)).collect();
        for begun in &begun {
            // As soon as one has nothing more, the others share what is left.
            if left.values().any(|left| *left == 0) {
                break;
            }
            *spent.entry(begun.job.caller).or_default() += begun.job.takes;
            *left.entry(begun.job.caller).or_default() -= 1;
            let (least, most) = (spent.values().min(), spent.values().max());
            prop_assert!(most.unwrap() - least.unwrap() <= LONGEST, "{spent:?}");
        }
    }

    /// A loaded model is preferred, but nobody's turn is put off for longer than the patience and the job that runs when
    /// it ends: compared with the same turns of jobs that all fit.
    #[test]
    fn affinity_delays_nobody_longer_than_the_patience(
        jobs in prop::collection::vec((1..=LONGEST, 0..3u8), 2..100),
    ) {
        let job = |(id, &(takes, model)): (usize, &(u64, u8))| Job {
            id, caller: 0, priority: Priority::Normal, arrives: id as u64, takes, model,
        };
        let jobs: Vec<Job> = jobs.iter().enumerate().map(job).collect();
        let (begun, _) = simulate(Policy { rise_after: Duration::from_secs(3600), ..policy() }, &jobs);
        let mut oldest_waiting_since = BTreeMap::new();
        let mut done = std::collections::BTreeSet::new();
        for begun in &begun {
            // The turn of a job has come when all older ones have begun.
            let head = (0..jobs.len()).find(|id| !done.contains(id)).unwrap();
            let since = *oldest_waiting_since.entry(head).or_insert(begun.at);
            prop_assert!(begun.at - since <= PATIENCE + LONGEST, "job {head} was put off");
            done.insert(begun.job.id);
        }
    }
}

fn alternating(count: usize) -> Vec<Job> {
    let job = |id| Job {
        id,
        caller: 0,
        priority: Priority::Normal,
        arrives: id as u64,
        takes: 100,
        model: (id % 2) as u8,
    };
    (0..count).map(job).collect()
}

#[test]
fn two_alternating_models_are_not_loaded_in_turn() {
    let patient = Policy { patience: Duration::from_secs(60), ..Policy::default() };
    assert_eq!(simulate(patient, &alternating(40)).1, 2);
    let impatient = Policy { patience: Duration::ZERO, ..Policy::default() };
    // Without patience each job but the first, which nobody overtakes, has its turn.
    assert!(simulate(impatient, &alternating(40)).1 > 20);
    // With some, loads are as many as patiences.
    let (_, loads) = simulate(policy(), &alternating(40));
    assert!(loads <= 6, "{loads}");
}

#[test]
fn higher_priorities_go_first_and_a_low_one_rises() {
    let job = |id, priority, arrives| Job { id, caller: 0, priority, arrives, takes: 100, model: 0 };
    let mut jobs = vec![job(0, Priority::Low, 0), job(1, Priority::Normal, 0), job(2, Priority::High, 0)];
    let order =
        |jobs: &[Job]| simulate(policy(), jobs).0.iter().map(|begun| begun.job.id).collect::<Vec<_>>();
    assert_eq!(order(&jobs), [2, 1, 0]);
    // High ones without end: the low one has its turn when it has risen twice.
    jobs.extend((3..100).map(|id| job(id, Priority::High, (id as u64 - 3) * 100)));
    let (begun, _) = simulate(policy(), &jobs);
    let low = begun.iter().find(|begun| begun.job.id == 0).unwrap();
    assert!((2 * RISE..=2 * RISE + 2 * LONGEST).contains(&low.at), "{}", low.at);
}

#[test]
fn a_caller_with_many_jobs_does_not_hold_up_another() {
    let job =
        |id, caller, arrives| Job { id, caller, priority: Priority::Normal, arrives, takes: 100, model: 0 };
    let mut jobs: Vec<Job> = (0..200).map(|id| job(id, 1, 0)).collect();
    // Long after all of the first caller's could have risen.
    jobs.push(job(200, 2, 3 * RISE));
    let (begun, _) = simulate(policy(), &jobs);
    let late = begun.iter().find(|begun| begun.job.id == 200).unwrap();
    assert!(late.at <= 3 * RISE + 2 * 100, "it began at {}", late.at);
}

#[test]
fn who_was_away_gets_no_credit() {
    let job =
        |id, caller, arrives| Job { id, caller, priority: Priority::Normal, arrives, takes: 100, model: 0 };
    let mut jobs: Vec<Job> = (0..60).map(|id| job(id, 1, 0)).collect();
    jobs.extend((60..90).map(|id| job(id, 2, 3_000)));
    let (begun, _) = simulate(policy(), &jobs);
    let turns: Vec<u8> =
        begun.iter().filter(|begun| begun.at > 3_000).take(20).map(|begun| begun.job.caller).collect();
    let second = turns.iter().filter(|caller| **caller == 2).count();
    assert!((9..=11).contains(&second), "{turns:?}");
}

#[test]
fn while_something_runs_only_what_joins_it_begins_and_not_for_ever() {
    let (begin, policy) = (Instant::now(), policy());
    let mut waiting = Waiting::new(policy);
    let turn =
        |ms| Turn { caller: None, priority: Priority::Normal, accepted: begin + Duration::from_millis(ms) };
    waiting.push(turn(0), "other");
    for ms in 1..4 {
        waiting.push(turn(ms), "joins");
    }
    let joins = |job: &&str| *job == "joins";
    let at = |ms| begin + Duration::from_millis(ms);
    assert_eq!(waiting.pop(at(10), true, joins), Some("joins"));
    assert_eq!(waiting.pop(at(10 + PATIENCE / 2), true, joins), Some("joins"));
    assert_eq!(waiting.pop(at(10 + PATIENCE), true, joins), None, "the other one's patience is at an end");
    assert_eq!(waiting.pop(at(11 + PATIENCE), false, joins), Some("other"));
    assert_eq!(waiting.pop(at(11 + PATIENCE), false, joins), Some("joins"));
    assert!(waiting.is_empty());
}
