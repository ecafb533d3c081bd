//! Samplers, schedules and second passes by the names that the web UI gives them.

use operations_contract::{Sampler, Schedule};
use sd_engine::{sampler_label, schedule_label};

/// What the web UI knows about a sampler beside its name.
struct Known {
    sampler: Sampler,
    /// Other names, as its `samplers` lists them.
    aliases: &'static [&'static str],
    /// The schedule that `Automatic` means with it; `None`: the one that it was trained with.
    automatic: Option<Schedule>,
}

const fn known(sampler: Sampler, aliases: &'static [&'static str], automatic: Option<Schedule>) -> Known {
    Known { sampler, aliases, automatic }
}

const KARRAS: Option<Schedule> = Some(Schedule::Karras);
const EXPONENTIAL: Option<Schedule> = Some(Schedule::Exponential);

/// Facts of the web UI 1.10 (`modules/sd_samplers_kdiffusion.py`, `sd_samplers_timesteps.py`, `sd_samplers_lcm.py`).
const SAMPLERS: &[Known] = &[
    known(Sampler::Dpmpp2m, &["k_dpmpp_2m"], KARRAS),
    known(Sampler::DpmppSde, &["k_dpmpp_sde"], KARRAS),
    known(Sampler::Dpmpp2mSde, &["k_dpmpp_2m_sde"], EXPONENTIAL),
    known(Sampler::Dpmpp2sA, &["k_dpmpp_2s_a"], KARRAS),
    known(Sampler::Dpmpp3mSde, &["k_dpmpp_3m_sde"], EXPONENTIAL),
    known(Sampler::EulerA, &["k_euler_a", "k_euler_ancestral"], None),
    known(Sampler::Euler, &["k_euler"], None),
    known(Sampler::Lms, &["k_lms"], None),
    known(Sampler::Heun, &["k_heun"], None),
    known(Sampler::Dpm2, &["k_dpm_2"], KARRAS),
    known(Sampler::Dpm2A, &["k_dpm_2_a"], KARRAS),
    known(Sampler::Ddim, &["ddim"], None),
    known(Sampler::Pndm, &["plms"], None),
    known(Sampler::Unipc, &["unipc"], None),
    known(Sampler::Lcm, &["k_lcm"], None),
    // Not in the web UI.
    known(Sampler::Ddpm, &[], None),
    known(Sampler::Deis, &[], None),
    known(Sampler::Tcd, &[], None),
];

/// The web UI's names of a schedule and its number of Karras' rho, where it has one.
pub(crate) struct KnownSchedule {
    pub(crate) schedule: Schedule,
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    pub(crate) aliases: &'static [&'static str],
    pub(crate) rho: f64,
}

/// `modules/sd_schedulers.py`.
pub(crate) fn schedules() -> impl Iterator<Item = KnownSchedule> {
    Schedule::ALL.iter().map(|schedule| {
        let (name, label, aliases): (_, _, &[&str]) = match schedule {
            // The web UI has two names for evenly spaced timesteps.
            Schedule::Normal => ("normal", "Normal", &["uniform", "Uniform"]),
            Schedule::SgmUniform => ("sgm_uniform", schedule_label(*schedule), &["SGMUniform"]),
            Schedule::DdimUniform => ("ddim", schedule_label(*schedule), &["ddim_uniform"]),
            other => (other.as_str(), schedule_label(*other), &[]),
        };
        let rho = if *schedule == Schedule::Karras { 7.0 } else { -1.0 };
        KnownSchedule { schedule: *schedule, name, label, aliases, rho }
    })
}

/// The name of a sampler, and its other names.
pub(crate) fn of_sampler(sampler: Sampler) -> (&'static str, &'static [&'static str]) {
    let aliases =
        SAMPLERS.iter().find(|known| known.sampler == sampler).map_or(&[][..], |known| known.aliases);
    (sampler_label(sampler), aliases)
}

/// What is meant by a sampler's name: the name, one of its others, ours; older clients put the schedule behind it, as in
/// `DPM++ 2M Karras`.
pub(crate) fn sampler(name: &str) -> Option<(Sampler, Option<Schedule>)> {
    if let Some(sampler) = plain_sampler(name) {
        return Some((sampler, None));
    }
    let (sampler, schedule) = name.rsplit_once(' ')?;
    Some((plain_sampler(sampler)?, Some(self::schedule(schedule)?)))
}

fn plain_sampler(name: &str) -> Option<Sampler> {
    let meant = |known: &&Known| {
        let label = sampler_label(known.sampler);
        label.eq_ignore_ascii_case(name) || known.sampler.as_str() == name || known.aliases.contains(&name)
    };
    SAMPLERS.iter().find(meant).map(|known| known.sampler)
}

/// What is meant by the name of a schedule.
pub(crate) fn schedule(name: &str) -> Option<Schedule> {
    let meant = |known: &KnownSchedule| {
        known.label.eq_ignore_ascii_case(name)
            || known.name.eq_ignore_ascii_case(name)
            || known.aliases.contains(&name)
            || known.schedule.as_str() == name
    };
    schedules().find(meant).map(|known| known.schedule)
}

/// What `Automatic` means with a sampler.
pub(crate) fn automatic(sampler: Sampler) -> Schedule {
    let known = SAMPLERS.iter().find(|known| known.sampler == sampler);
    known.and_then(|known| known.automatic).unwrap_or(Schedule::Normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sampler_is_meant_by_each_of_its_names_and_by_no_other() {
        for sampler_of in Sampler::ALL.iter().filter(|s| !s.as_str().starts_with("flow")) {
            let (name, aliases) = of_sampler(*sampler_of);
            for name in [name, sampler_of.as_str()].iter().chain(aliases) {
                assert_eq!(sampler(name), Some((*sampler_of, None)), "{name}");
            }
        }
        assert_eq!(sampler("DPM++ 2M Karras"), Some((Sampler::Dpmpp2m, Some(Schedule::Karras))));
        assert_eq!(
            sampler("DPM++ 3M SDE Exponential"),
            Some((Sampler::Dpmpp3mSde, Some(Schedule::Exponential)))
        );
        for unknown in ["Restart", "DPM fast", "DPM++ 2M Turbo", "", " "] {
            assert_eq!(sampler(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn every_schedule_is_meant_by_each_of_its_names() {
        for known in schedules() {
            for name in [known.name, known.label, known.schedule.as_str()].iter().chain(known.aliases) {
                assert_eq!(schedule(name), Some(known.schedule), "{name}");
            }
        }
        assert_eq!(schedule("KL Optimal"), None);
        // Not one schedule, but one for each sampler.
        assert_eq!(schedule("Automatic"), None);
        assert_eq!(automatic(Sampler::Dpmpp2m), Schedule::Karras);
        assert_eq!(automatic(Sampler::Euler), Schedule::Normal);
    }
}
