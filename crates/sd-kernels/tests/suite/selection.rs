//! Which kernels are chosen.

use sd_kernels::{KernelError, KernelSet, Kernels, active, report};

#[test]
fn names_go_both_ways() {
    for set in KernelSet::ALL {
        assert_eq!(set.name().parse::<KernelSet>().unwrap(), set);
        assert_eq!(set.name().to_uppercase().parse::<KernelSet>().unwrap(), set);
    }
    let error = "sse".parse::<KernelSet>().unwrap_err();
    assert_eq!(error, KernelError::UnknownSet("sse".into()));
    assert!(error.to_string().contains("expected scalar, avx2, avx512 or amx"));
}

#[test]
fn scalar_always_runs_and_detection_takes_the_last() {
    let available = Kernels::available();
    assert_eq!(available[0].set(), KernelSet::Scalar);
    assert_eq!(*available.last().unwrap(), Kernels::detect());
}

#[test]
fn the_report_accounts_for_every_set() {
    let report = report();
    assert_eq!(report.active, active().set());
    assert_eq!(report.sets.len(), KernelSet::ALL.len());
    for (set, reason) in &report.sets {
        assert_eq!(reason.is_none(), Kernels::new(*set).is_ok());
    }
    let text = report.to_string();
    for set in KernelSet::ALL {
        assert!(text.contains(set.name()), "{text}");
    }
}
